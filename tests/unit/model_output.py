"""Answers in the manner of language models, for tests of cleaning: all written for them."""

DOCUMENTS = {
    "options": """Sure! Here's a **quick overview** of the *three* main options:

### Option A: the fast one

- **Speed:** 10 ms (~5x faster)
- **Cost:** $5 a month, or $50 a year
    - includes `pip install foo`
    - see [the docs](https://docs.example.com/a/b?x=1#y "Docs")
- *Note:* requires Python >= 3.10

### Option B

1. First, run:

   ```bash
   pip install bar==1.2.3
   ```

2. Then open `config.yaml` and set `debug: true`.
3. Done!

| Feature | A | B |
|:--------|:-:|--:|
| Speed   | **fast** | slow |
| Price   | $5 | none |

> **Tip:** Don't use `eval()`; it's dangerous!
> Really.

---

Hope this helps! Let me know if you have questions.
""",
    "recipe": """# Pancakes

A *simple* recipe for **four** people.

## Ingredients

* 2 cups (250 g) flour
* 1 tsp. salt
* 3-4 eggs
* ~~sugar~~ honey

## Method

1. Mix **all** the _dry_ ingredients.
2. Add the eggs, **one by one**, and stir.
3. Bake at 180 °C for 25-30 min.

***Enjoy!***
""",
    "maths": """To multiply, write 3 * 4 * 5 or 2*3, and for powers 2**10.
If a < b and b > c, then `a[0] <= b[1]` holds.

So snake_case_name is *not* emphasis, but __this__ is.
""",
    "quotes": """She asked: "Is it **really** 5 o'clock?"

> It is, said the **clock**.
>
> And it was.

*"Good,"* she said, and left (quietly).
""",
    "nested": """1. **Outer one**
   - inner *a*
   - inner **b**
     1. deep
2. **Outer two**: see [a **bold** link](http://example.com) and ![a picture](p.png).

   A paragraph in the item.
3. Last
""",
    "languages": """# Überblick

这是**重要**的内容。日本語の*強調*です。

- Das ist **wichtig**, d. h. nicht egal.
- Il a dit « **Bonjour** » hier.
- Это *важно*.
""",
    "code": """Use `git commit -m "msg"` and then `git push`.

```python
def f(*args, **kwargs):
    return "**not bold**"
```

Then call ``f(`x`)`` again.

~~~
more code
~~~

Done.
""",
    "table": """Here it is:

| Name | Age | City |
|------|:---:|-----:|
| Ann  | 7   | *Rome* |
| Tom  |     | `Bonn` |

That is **all**.
""",
    "letter": """Dear Ms. Smith,

thank you for your letter of 2 March. We are **very** sorry
about the delay; the parcel (no. 12345) left on *Monday*.

Yours,
Jo
""",
}
