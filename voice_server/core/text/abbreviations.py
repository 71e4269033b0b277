"""What a full stop does not end, as data: abbreviations by language, months, and common words.

sentencex knows many abbreviations already; these tables hold what it misses, checked against
version 1.0.32 by the cases in bench/segment_cases.py. All entries are lower case without the last
full stop; an entry may hold inner full stops ("z.b").
"""

from __future__ import annotations


def _words(line: str) -> frozenset[str]:
    return frozenset(line.split())


# Titles and lead-ins: something always follows, so the sentence never ends here. ANY applies in
# every language, and holds nothing that is a word of its own in one of them.
ANY = _words(
    "mr mrs ms dr prof mme mmes mlle mlles messrs rev hon sr sra srta sig dott dña hr dhr "
    "dra drs profa exmo exma mevr pág págs pag núm blz bkz ul ing abb kl nr ee "
    "e.g i.e cf vs approx z.b d.h u.a bzw vgl bijv p.ej p.ex т.е т.к séc m.in"
)

# The same, as two words.
ANY_PAIR = ("p. ex", "p. ej", "p. es", "t. ex", "f. eks")

NEVER_ENDS: dict[str, frozenset[str]] = {
    "en": _words("tsp tbsp oz viz esp fig figs eq eqs vol vols ch sect atty"),
    "de": _words(
        "i.d.r ggf evtl inkl exkl zzgl sog fr frl dipl ing nr abb kap bd art abs st str tel max "
        "min fa bhf freundl ca geb gest verh hl s.o s.u o.g"
    ),
    "fr": _words(
        "m mm drs pr me st ste av apr env chap art fig vol éd boul bd tél j.-c c.-à-d n° num sté"
    ),
    "es": _words(
        "sres sras d dn dra profa ing lic arq ud uds vd vds pág págs núm nro art cap vol fig av "
        "avda tel gral cía ee"
    ),
    "it": _words(
        "sig.ra sigg sig.na dott.ssa ing avv arch prof.ssa on pag pagg cap art fig vol es tel num "
        "geom rag mons"
    ),
    "pt": _words(
        "srs sras dra drs profa eng exmo exma ilmo v.exa exa pág págs núm art cap fig vol av tel ex"
    ),
    "nl": _words("mevr mw drs ir ing o.a d.w.z m.b.t i.v.m t.o.v blz nr art tel ca"),
    "sv": _words("t.ex bl.a d.v.s dvs kl ca nr s.k fr.o.m t.o.m ung tel"),
    "da": _words("f.eks bl.a dvs ca nr kl fr tlf pga inkl ekskl"),
    "no": _words("f.eks bl.a dvs ca nr kl fr tlf pga inkl ekskl"),
    "pl": _words("np inż mgr hab ul al pl tzn tj tzw nr tel św ks godz ok rys gen płk"),
    "cs": _words("např ing mgr bc tzv tj č str ul nám tel sv"),
    "tr": _words("doç av sn bkz örn yrd müh alb"),
    "ru": _words(
        "т.н им см ср стр рис табл гл ул пр просп пл пер д кв корп проф акад доц др напр св тов "
        "гр г-н г-жа тел"
    ),
    "uk": _words("напр див рис табл вул просп проф акад ім св тел"),
    "hi": _words("डॉ डा श्री प्रो पं मि सु श्रीमती रु क्र सं"),
    "he": _words("פרופ גב"),
    "fa": _words("دکتر"),
    "el": _words("κα δρ π.χ δηλ βλ αρ σελ"),
}

# They often close a sentence: an end when a capital follows.
MAY_END: dict[str, frozenset[str]] = {
    "de": _words("usw etc u.v.m uvm"),
    "fr": _words("etc"),
    "es": _words("etc"),
    "it": _words("ecc etc"),
    "pt": _words("etc"),
    "nl": _words("enz etc"),
    "sv": _words("osv m.m etc"),
    "da": _words("osv m.m etc"),
    "no": _words("osv m.m etc"),
    "pl": _words("itd itp"),
    "cs": _words("atd apod"),
    "tr": _words("vb vs"),
    "ru": _words("т.д т.п"),
    "uk": _words("тощо"),
}

# The same, as two words.
MAY_END_PAIR = ("т. д", "т. п")

# The same, but only after a number: "в 1990 г. Он" ends, "г. Москва" does not.
MAY_END_AFTER_NUMBER: dict[str, frozenset[str]] = {
    "ru": _words("г гг в вв руб коп тыс млн млрд"),
    "uk": _words("р рр грн тис млн млрд"),
    "pl": _words("r w zł gr tys mln mld"),
}

# Units: after a number they are no initials, and end a sentence as words do.
UNITS = _words("m g l s h km kg cm mm ml м л с ч г км кг см мм мл")

# With a capital after them they end a sentence, unless that is a day or a time zone.
HOURS: dict[str, frozenset[str]] = {"en": _words("a.m p.m"), "es": _words("a.m p.m")}
AFTER_HOUR = _words(
    "monday tuesday wednesday thursday friday saturday sunday mon tue tues wed thu thurs fri sat "
    "sun eastern central mountain pacific greenwich january february march april may june july "
    "august september october november december"
)

# English words that sentencex takes for abbreviations ("me" for Maine): in lower case, and with no
# number after them, they end a sentence like any other word.
WORDS: dict[str, frozenset[str]] = {
    "en": _words(
        "me no may id ill ark miss con fed pa ma ref rep reps min sec art cal del res ext mar sun "
        "mon sat ok"
    ),
}

# With a number after them these are no words: "ed. 4", "Apt. 4".
BEFORE_NUMBER: dict[str, frozenset[str]] = {
    "en": _words("ed eds apt rm art arts ver op par nos pp ll ext hr hrs ft lb lbs"),
    "fr": _words("janv févr avr juil sept oct nov déc"),
}

# Single letters that are words: "Это я. Он" ends at "я".
LETTER_WORDS = _words("я é è ò")

# Languages that write an ordinal as a number with a full stop: "der 2. Weltkrieg".
ORDINAL_FULL_STOP = _words("de da no nb nn fi cs sk pl hu hr sl sr bs et lv lt is tr")

# Words that stand behind a number and its point only where they begin a sentence.
STARTERS: dict[str, frozenset[str]] = {
    "de": _words(
        "Ich Du Er Es Wir Ihr Sie Das Dies Der Die Ein Eine Dann Danach Aber Und Oder Ja Nein Also "
        "Wenn Was Wie Wo Wer Warum Hier Da Damit Möchten Möchtest Kann Können Soll Ist Sind Heute"
    ),
    "da": _words("Jeg Du Han Hun Det Den Vi De Og Men Så Er Hvad Hvordan Ja Nej Her"),
    "no": _words("Jeg Du Han Hun Det Den Vi De Og Men Så Er Hva Hvordan Ja Nei Her"),
    "nb": _words("Jeg Du Han Hun Det Den Vi De Og Men Så Er Hva Hvordan Ja Nei Her"),
    "fi": _words("Minä Sinä Hän Se Me Te He Ja Mutta Niin Onko Mitä Miten Kyllä Ei Tämä Sitten"),
    "cs": _words("Já Ty On Ona Ono My Vy Oni To Ten Ta A Ale Pak Je Jsou Co Jak Kde Ano Ne Tady"),
    "pl": _words("Ja Ty On Ona Ono My Wy Oni To Ten Ta A Ale Potem Czy Jest Są Co Jak Gdzie Tak"),
    "tr": _words("Ben Sen O Biz Siz Onlar Bu Şu Ama Ve Sonra Evet Hayır Ne Nasıl Orada Burada"),
}

# Months after "3.", for when the language is unknown.
MONTHS = _words(
    "januar jänner februar märz april mai juni juli august september oktober november dezember "
    "januari februari maj augusti desember december marts stycznia lutego marca kwietnia maja "
    "czerwca lipca sierpnia września października listopada grudnia"
)

# What sentencex is asked for, by the script of the last letter: the range, the language when none
# of that script was named, and those that are.
SCRIPTS: tuple[tuple[int, int, str, frozenset[str]], ...] = (
    (0x0370, 0x03FF, "el", _words("el")),
    (0x0400, 0x052F, "ru", _words("ru uk be bg sr mk kk ky mn tg")),
    (0x0530, 0x058F, "hy", _words("hy")),
    (0x0590, 0x05FF, "he", _words("he yi")),
    (0x0600, 0x06FF, "ar", _words("ar fa ur ps ckb ug sd")),
    (0x0900, 0x097F, "hi", _words("hi mr ne sa kok mai")),
    (0x0980, 0x09FF, "bn", _words("bn as")),
    (0x0A00, 0x0A7F, "pa", _words("pa")),
    (0x0A80, 0x0AFF, "gu", _words("gu")),
    (0x0B80, 0x0BFF, "ta", _words("ta")),
    (0x0C00, 0x0C7F, "te", _words("te")),
    (0x0C80, 0x0CFF, "kn", _words("kn")),
    (0x0D00, 0x0D7F, "ml", _words("ml")),
    (0x1000, 0x109F, "my", _words("my")),
    (0x1200, 0x137F, "am", _words("am ti")),
    (0x1F00, 0x1FFF, "el", _words("el")),
    (0x3040, 0x30FF, "ja", _words("ja")),
    (0x3400, 0x9FFF, "zh", _words("zh ja yue")),
    (0xAC00, 0xD7AF, "ko", _words("ko")),
)

# Those that are not written in Latin letters: no guide to a Latin word in their midst.
OTHER_SCRIPTS: frozenset[str] = frozenset().union(*(members for *_, members in SCRIPTS))
