"""Sentences by language, for the accuracy table of ``segment.py`` and for its unit test.

``¦`` marks where a segment ends; everything else is text. Written by hand: what language models
say to people, and what makes a full stop not a full stop.
"""

from __future__ import annotations

CASES: dict[str, tuple[str, ...]] = {
    "en": (
        "Hello there. ¦How are you today? ¦I am fine!",
        "Dr. Smith met Mrs. Jones at St. Mary's. ¦They talked.",
        "We moved it to ASP.NET last year. ¦Node.js came later.",
        "J. R. R. Tolkien wrote it. ¦I read it twice.",
        "It took 5 hrs. 30 min. with Atty. Gen. Smith. ¦Good.",
        "In the U.S. Army he was a cook. ¦Now he is not.",
        "She lives in the U.S. ¦We miss her.",
        "It costs $3.50 or 2.75 euros. ¦That is cheap.",
        "Use v1.2.3 of the library. ¦See docs.example.com for more.",
        "Open main.py and README.md first. ¦Then run it.",
        "Some fruit, e.g. apples, keeps well. ¦Others, i.e. berries, do not.",
        "Wait... what did you say? ¦Hmm... ¦Let me think.",
        "What?! ¦No way!!! ¦Really.",
        'He said "Hello." ¦Then he left.',
        '"Really?!" she said. ¦"Yes." ¦He nodded.',
        "Tell me. ¦John knows. ¦No. ¦Nobody does.",
        "See Fig. 3 and No. 5 below. ¦Both are clear.",
        "It starts at 5 p.m. on Monday. ¦Be there at 4:45.",
        "1. Open the box. ¦2. Take it out. ¦3. Plug it in.",
        "Shopping list:\n\n¦1. Milk\n¦2. Eggs\n¦3. Bread",
        "Apple Inc. makes phones. ¦They sell well.",
        "It was late (about 11 p.m.) and dark. ¦We left.",
        "I... I don't know. ¦Sorry.",
        "hello. ¦how are you? ¦i am fine.",
        "Plan B. ¦Then we go home.",
        "See ed. 4, ch. 5, or Apt. 4. ¦Both exist.",
        "The U.K. has left. ¦The E.U. has not.",
        "I can't believe it! ¦[laugh] That's hilarious. ¦[sigh]",
        "Meet me at 10 a.m. ¦I'll be there.",
        "It starts at 5 p.m. Eastern or 2 p.m. PST. ¦Don't be late.",
        "(This is a note.) ¦Now the text.",
        "Sure! ¦Here's the plan: 1. Eat. ¦2. Sleep.",
        "It weighs 5 g. ¦Put it back.",
        "It's on Main St. near 5th Ave. ¦Turn left.",
    ),
    "de": (
        "Guten Tag. ¦Wie geht es Ihnen? ¦Mir geht es gut!",
        "Am 2. März kam er an. ¦Es war kalt.",
        "Der 2. Weltkrieg endete 1945. ¦Danach war Frieden.",
        "Das ist z. B. Berlin. ¦Oder d. h. eine Stadt.",
        "Prof. Dr. Müller ist da. ¦Hr. Meier kommt um 10.30 Uhr.",
        "Nr. 5 lebt. ¦Vgl. S. 12 und Abb. 3 dazu.",
        "Äpfel, Birnen usw. sind gesund. ¦Das weiß jeder.",
        "„Hallo.“ ¦Dann ging er. ¦„Warum?“, fragte sie.",
        "Es kostet ca. 5 Euro bzw. 6 Franken. ¦Das geht.",
        "Er wohnt in der Str. des 17. Juni. ¦Dort ist es laut.",
        "Die Antwort ist 42. ¦Das macht 3. ¦Es stimmt.",
        "Kaiser Wilhelm II. war da. ¦Er sprach.",
        "Sie wurde im Jahr 5 n. Chr. gebaut. ¦Er maß 5 m. ¦Danach nicht mehr.",
    ),
    "fr": (
        "Bonjour. ¦Comment allez-vous ? ¦Très bien !",
        "M. Dupont est là. ¦Mme Curie arrive.",
        "MM. Dupont et Durand sont partis. ¦Dommage.",
        "Il a dit « Bonjour ! » puis il est parti. ¦Voilà.",
        "« Merci ! » ¦Elle sourit. ¦« Pourquoi ? » demanda-t-il.",
        "C'était en 50 av. J.-C. environ. ¦Rome grandissait.",
        "Il y a des fruits, p. ex. Des pommes. ¦Et des légumes.",
        "Voir p. 12 et art. 5 du code. ¦C'est clair.",
        "Cela coûte 3,50 euros. ¦C'est tout…  ¦Non ?",
        "Il est 8 h. ¦Partons.",
        "Le 1er janv. 2024 il a couru 5 km. ¦Bravo !",
        "Louis XIV. ¦Le roi Soleil.",
    ),
    "es": (
        "Hola. ¦¿Cómo estás? ¦¡Muy bien!",
        "El Sr. García y la Sra. López vinieron. ¦Luego se fueron.",
        "D. Juan y Dña. Ana viven aquí. ¦Son amables.",
        "Vive en EE. UU. desde 1990. ¦Le gusta.",
        "Véase la pág. 3 y el núm. 5. ¦Está claro.",
        "¿Qué? ¦¡No puede ser! ¦Sí.",
        "Hay frutas, p. ej. manzanas. ¦Y verduras.",
        "Ud. es muy amable. ¦Gracias.",
        "Son las 5 p.m. ¦Vamos.",
    ),
    "it": (
        "Ciao. ¦Come stai? ¦Benissimo!",
        "Il Sig. Rossi e la Dott.ssa Bianchi sono qui. ¦Parlano.",
        "Il Prof. Verdi insegna. ¦L'Ing. Neri progetta.",
        "Vedi pag. 3 e art. 5. ¦È chiaro.",
        "Mele, pere ecc. fanno bene. ¦Lo sanno tutti.",
        "Costa 3,50 euro. ¦Va bene?",
        "P.S. Ti amo. ¦La F.I.A.T. è a Torino.",
    ),
    "pt": (
        "Olá. ¦Como vai? ¦Muito bem!",
        "O Sr. Silva e a Dra. Ana vieram. ¦Depois saíram.",
        "Há frutas, p. ex. Lisboa vende muitas. ¦E legumes.",
        "Veja a pág. 3 e o núm. 5. ¦Está claro.",
        "O Exmo. Sr. Presidente falou. ¦Todos ouviram.",
        "Custa 3,50 euros. ¦É barato, não é?",
        "O séc. XX foi longo. ¦O séc. XXI começou.",
    ),
    "nl": (
        "Hallo. ¦Hoe gaat het? ¦Goed!",
        "Dhr. Jansen en mevr. De Vries zijn er. ¦Ze praten.",
        "Er is fruit, bijv. appels. ¦En groente.",
        "Zie blz. 3 en art. 5. ¦Dat is duidelijk.",
        "Steden o.a. Utrecht groeien. ¦Dat is bekend.",
    ),
    "ru": (
        "Привет. ¦Как дела? ¦Хорошо!",
        "Это г. Москва. ¦Он большой.",
        "А. С. Пушкин родился там. ¦Он поэт.",
        "Он живёт на ул. Ленина. ¦Это далеко.",
        "Это было в 1990 г. ¦Он помнит.",
        "Школа им. Гагарина открыта. ¦Дети рады.",
        "Яблоки, груши и т. д. полезны. ¦Это знают все.",
        "Кто там? ¦Это я. ¦Открой!",
        "Вес 5 кг. ¦Рост 2 м. ¦Он ест хлеб и т. п. ¦Всё.",
        "— Стой! — крикнул он. ¦Она остановилась.",
        "В XX в. было иначе. ¦Он приехал в 10 ч. утра. ¦Это стоит 100 руб. ¦Дорого.",
    ),
    "pl": (
        "Cześć. ¦Jak się masz? ¦Dobrze!",
        "Prof. Kowalski i dr Nowak są tutaj. ¦Rozmawiają.",
        "Są owoce, np. jabłka. ¦I warzywa.",
        "Mieszka przy ul. Długiej. ¦To daleko.",
        "To było w 1990 r. ¦On pamięta.",
        "To jest m.in. Kraków. ¦Żył w XVII w. ¦Był królem.",
    ),
    "tr": (
        "Merhaba. ¦Nasılsın? ¦İyiyim!",
        "Dr. Ahmet geldi. ¦Sonra gitti.",
        "Prof. Yılmaz ve Sn. Demir burada. ¦Konuşuyorlar.",
        "Bkz. sayfa 3. ¦Orada yazıyor.",
        "3. Murat bir padişahtı. ¦Bunu herkes bilir.",
    ),
    "zh": (
        "你好。¦你今天怎么样？¦我很好！",
        "他说：“你好。”¦然后走了。",
        "“你好！”，他说。¦她笑了。",
        "价格是3.14元。¦很便宜。",
        "我们用GPT-4.0来做。¦效果很好。",
        "我读了《你是谁？》这本书。¦很有趣。",
        "好的!¦他来了?¦是的。",
        "等等……让我想想。¦好了。",
        "“什么？”¦“没有。”",
        "他说“好。”就走了。¦我们等。",
    ),
    "ja": (
        "こんにちは。¦お元気ですか？¦はい！",
        "「はい。」と彼は言った。¦そうだ。",
        "「行くよ！」って言ってた。¦本当に。",
        "「はい。」¦「いいえ。」¦二人は黙った。",
        "東京（日本。）です。¦大きい。",
        "ver.2.0です。¦はい。",
        "値段は3.14円です。¦安い。",
    ),
    "ko": (
        "안녕하세요. ¦잘 지내세요? ¦네!",
        "그는 3.14라고 했다. ¦그래요?",
        "Dr. Kim이 왔다. ¦모두 기뻐했다.",
        "“좋아요.” ¦그녀가 웃었다.",
        "버전 1.2.3을 쓰세요. ¦감사합니다.",
    ),
    "hi": (
        "नमस्ते। ¦आप कैसे हैं? ¦मैं ठीक हूँ!",
        "डॉ. राम आये। ¦वे अच्छे हैं।",
        "श्री. शर्मा और प्रो. वर्मा यहाँ हैं। ¦वे बात करते हैं।",
        "इसका दाम 3.50 रुपये है।¦यह सस्ता है।",
        "क्या? ¦हाँ! ¦ठीक।",
    ),
    "ar": (
        "مرحباً. ¦كيف حالك؟ ¦أنا بخير!",
        "د. أحمد هنا. ¦إنه طبيب.",
        "السعر 3.50 دولار. ¦هذا رخيص.",
        "هل أنت بخير؟ ¦نعم، شكراً.",
        "قال: «نعم.» ¦ثم ذهب.",
    ),
    "fa": (
        "سلام. ¦خوبی؟ ¦بله!",
        "قیمت ۳.۵ دلار است. ¦ارزان است.",
        "او گفت: «بله.» ¦و رفت.",
        "می‌خواهم بروم. ¦شما چطور؟",
        "نسخه 1.2.3 را نصب کنید. ¦ممنون.",
    ),
    "el": (
        "Γεια σας. ¦Τι κάνετε; ¦Καλά!",
        "Ο κ. Παπαδόπουλος ήρθε. ¦Μίλησε.",
        "Κοστίζει 3,50 ευρώ. ¦Είναι φτηνό.",
        "Ποιος είναι; ¦Εγώ είμαι. ¦Άνοιξε!",
        "Υπάρχουν φρούτα, π.χ. μήλα. ¦Και λαχανικά.",
    ),
    "sv": (
        "Hej. ¦Hur mår du? ¦Bra!",
        "Vi har frukt, t.ex. äpplen. ¦Och grönsaker.",
        "Mötet är kl. 5 på fredag. ¦Kom i tid.",
        "Städer, bl.a. Stockholm, växer. ¦Det är känt.",
        "Se nr. 5 i listan. ¦Det är klart.",
    ),
    "bn": (
        "নমস্কার। ¦আপনি কেমন আছেন? ¦ভালো!",
        "আমি ভাত খাই। ¦সে মাছ খায়।",
        "দাম 3.50 টাকা।¦এটা সস্তা।",
        "কে? ¦আমি! ¦এসো।",
        "সে বলল, “হ্যাঁ।” ¦তারপর গেল।",
    ),
}

# What no rule of ours tells apart: an avenue may have a name behind it ("Ave. Maria"), and what
# stands behind a Chinese quotation may be a new sentence ("你好。”¦然后走了").
KNOWN_MISSES = frozenset(
    {"It's on Main St. near 5th Ave. ¦Turn left.", "他说“好。”就走了。¦我们等。"}
)


def expected(case: str) -> list[str]:
    """The segments of a case, without the white space between them."""
    return [segment.strip().replace("\n", " ") for segment in case.split("¦")]


def text_of(case: str) -> str:
    """The case as a model would write it."""
    return case.replace("¦", "")
