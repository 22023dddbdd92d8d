"""English and Chinese: names of what the embedded corpus labels, and sentences.

A template names kinds of tags in braces. A part in brackets is left out if the caption
has no tag of its kind; whatever stands outside brackets must be there.
"""

import re
from collections.abc import Collection
from functools import lru_cache

from muq_plugins.data.instruments import INSTRUMENTS

LANGUAGES = ("en", "zh")

_CHINESE = {one.name: one.chinese for one in INSTRUMENTS.values()}

# Family to its names in English and in Chinese, the usual one first.
FAMILIES = {
    "piano": (("keyboards", "piano"), ("键盘乐器", "钢琴")),
    "chromatic percussion": (
        ("bells and mallets", "tuned percussion"),
        ("音高打击乐器", "钟琴与槌击乐器"),
    ),
    "organ": (("organs", "organ"), ("风琴类乐器", "风琴")),
    "guitar": (("guitars", "guitar"), ("吉他类乐器", "吉他")),
    "strings": (("strings", "bowed strings"), ("弦乐器", "弦乐")),
    "brass": (("brass", "brass instruments"), ("铜管乐器", "铜管")),
    "reed": (("reed instruments", "reeds"), ("簧片乐器", "簧管")),
    "pipe": (("flutes and pipes", "flutes"), ("笛类乐器", "笛箫")),
    "mixed": (("mixed ensemble", "mixed instruments"), ("混合乐队", "不同种类的乐器")),
}

# Composer to the short name, the Chinese name and the short Chinese name.
COMPOSERS = {
    "Johann Sebastian Bach": ("Bach", "约翰·塞巴斯蒂安·巴赫", "巴赫"),
    "Wolfgang Amadeus Mozart": ("Mozart", "沃尔夫冈·阿马德乌斯·莫扎特", "莫扎特"),
    "Ludwig van Beethoven": ("Beethoven", "路德维希·凡·贝多芬", "贝多芬"),
    "Joseph Haydn": ("Haydn", "约瑟夫·海顿", "海顿"),
    "Robert Schumann": ("Schumann", "罗伯特·舒曼", "舒曼"),
    "Carl Philipp Emanuel Bach": (
        "C. P. E. Bach",
        "卡尔·菲利普·埃马努埃尔·巴赫",
        "C. P. E. 巴赫",
    ),
    "George Frideric Handel": ("Handel", "乔治·弗里德里克·亨德尔", "亨德尔"),
    "Carl Maria von Weber": ("Weber", "卡尔·马利亚·冯·韦伯", "韦伯"),
    "Giuseppe Verdi": ("Verdi", "朱塞佩·威尔第", "威尔第"),
    "Vicente Lusitano": ("Lusitano", "维森特·卢西塔诺", "卢西塔诺"),
    "Scott Joplin": ("Joplin", "斯科特·乔普林", "乔普林"),
    "Stephen Foster": ("Foster", "斯蒂芬·福斯特", "福斯特"),
    "Queen Liliʻuokalani": ("Liliʻuokalani", "利留卡拉尼女王", "利留卡拉尼"),
}

UNKNOWN_COMPOSER = "Anonymous"  # nothing to be learned from

# Up to so many quarter notes a minute, as in the captions that the corpus ships with.
TEMPI = (
    (66.0, ("very slow", "solemn"), ("很慢", "庄重")),
    (84.0, ("slow", "calm"), ("缓慢", "平缓")),
    (108.0, ("moderate", "walking"), ("适中", "从容")),
    (138.0, ("lively", "brisk"), ("轻快", "明快")),
    (float("inf"), ("fast", "quick"), ("快速", "急促")),
)

_KEY = re.compile(r"([A-G])([b#]?) (major|minor)")
_SIGNS = {"": ("", ""), "b": ("-flat", "降"), "#": ("-sharp", "升")}
_MODES = {"major": "大调", "minor": "小调"}

ENGLISH = (
    "A piece[ by {composer}][ in {key}][ for {family}][, played on {instruments}]"
    "[, in {metre}][, at a {tempo} tempo].",
    "Music[ for {family}][ by {composer}][ in {key}][, {metre}][; the instruments "
    "are {instruments}][; the tempo is {tempo}].",
    "A recording of music[ by {composer}][ for {family}][ with {instruments}]"
    "[ in {key}][; {tempo}][; {metre}].",
    "Instrumental music[ with {instruments}][, for {family}][, composed by {composer}]"
    "[, {tempo}][, in {metre}][, in {key}].",
    "A[ {tempo}] performance[ of music by {composer}][ on {instruments}]"
    "[, scored for {family}][, in {metre}][, in {key}].",
    "Listen to[ {instruments} in] this[ {tempo}] piece[ for {family}][ by {composer}]"
    "[, written in {key}][, counted in {metre}].",
    "{instruments} playing[ {tempo}] music[ by {composer}][ for {family}][ in {key}]"
    "[, in {metre}].",
    "{instruments} can be heard here[, arranged for {family}][, music by {composer}]"
    "[, with a {tempo} pulse][, in {metre}][, in {key}].",
    "We hear {instruments}[ play {composer}][, music for {family}][, in {key}]"
    "[, {tempo}][, in {metre}].",
    "The sound of {instruments}[ in a {tempo} tempo][, in {metre}][, {family}]"
    "[, a work by {composer}][, in {key}].",
    "Played by {instruments}[: {composer}][, for {family}][, {tempo}][, {key}]"
    "[, {metre}].",
    "{family}[, namely {instruments}][, play {composer}][ at a {tempo} pace]"
    "[ in {metre}][, in {key}].",
    "Music for {family}[ with {instruments}][, {tempo}][, by {composer}][, in {key}]"
    "[, in {metre}].",
    "An arrangement for {family}[ of music by {composer}][, played on {instruments}]"
    "[, {tempo}][, in {metre}][, in {key}].",
    "A {tempo} piece[ for {family}][ by {composer}][ with {instruments}][ in {metre}]"
    "[, in {key}].",
    "The music is {tempo}[, in {metre}][, in {key}][, by {composer}][, for {family}]"
    "[ and features {instruments}].",
    "It moves at a {tempo} pace[ in {metre}][; {instruments} play][; {family}]"
    "[; composed by {composer}][; in {key}].",
    "{composer}[ in {key}][, for {family}][, on {instruments}][, at a {tempo} tempo]"
    "[, in {metre}].",
    "A composition by {composer}[, {tempo}][, in {metre}][, for {family}]"
    "[, heard on {instruments}][, in {key}].",
    "This is music by {composer}[, arranged for {family}][, with {instruments}]"
    "[, in {key}][, in {metre}][, and it is {tempo}].",
    "In {key}[ and {metre}][: {instruments}][, {family}][, {tempo}][, by {composer}].",
    "A track in {metre}[, {tempo}][, with {instruments}][, for {family}]"
    "[, by {composer}][, in {key}].",
)

CHINESE = (
    "一段[{composer}创作的][{key}]音乐[，由{instruments}演奏][，属于{family}]"
    "[，{metre}][，节奏{tempo}]。",
    "这首[{key}]乐曲[出自{composer}][，使用了{instruments}][，{family}][，{metre}]"
    "[，节奏{tempo}]。",
    "[{composer}的]器乐作品[，为{family}而作][，有{instruments}][，{key}][，{metre}]"
    "[，节奏{tempo}]。",
    "录音里是[{composer}的]音乐[，可以听到{instruments}][，{key}][，{family}][，{metre}]"
    "[，节奏{tempo}]。",
    "一首[节奏{tempo}的][{metre}的][{key}的]曲子[，作曲家是{composer}]"
    "[，为{family}改编][，乐器有{instruments}]。",
    "请听这段[节奏{tempo}的]音乐[：{instruments}][，{family}][，{composer}作曲]"
    "[，{key}][，{metre}]。",
    "由{instruments}演奏的[{composer}的]音乐[，{family}][，{key}][，{metre}]"
    "[，节奏{tempo}]。",
    "{instruments}奏出[{composer}的]旋律[，节奏{tempo}][，{metre}][，{key}][，{family}]。",
    "可以听到{instruments}[，节奏{tempo}][，为{family}而作][，{composer}的作品]"
    "[，{key}][，{metre}]。",
    "主要乐器是{instruments}[，属于{family}][，作曲家是{composer}][，{key}]"
    "[，节奏{tempo}][，{metre}]。",
    "{instruments}的声音[，{family}][，{metre}][，节奏{tempo}][，{key}][，{composer}]。",
    "{family}演奏[{composer}的]乐曲[，有{instruments}][，节奏{tempo}][，{metre}][，{key}]。",
    "为{family}创作的音乐[，包括{instruments}][，节奏{tempo}][，{key}][，{metre}]"
    "[，{composer}]。",
    "以{family}为主的一段音乐[，乐器是{instruments}][，{composer}作曲][，节奏{tempo}]"
    "[，{metre}][，{key}]。",
    "节奏{tempo}的音乐[，{instruments}演奏][，{family}][，{metre}][，{key}]"
    "[，{composer}的作品]。",
    "整首曲子节奏{tempo}[，{metre}][，用{instruments}演奏][，{family}][，{key}]"
    "[，由{composer}作曲]。",
    "音乐节奏{tempo}[，由{composer}谱写][，{key}][，{metre}][，{family}]"
    "[，{instruments}]。",
    "{composer}的作品[，由{instruments}演绎][，{family}][，{key}][，{metre}]"
    "[，节奏{tempo}]。",
    "作曲家{composer}[，{key}][，{metre}][，节奏{tempo}][，为{family}改编]"
    "[，由{instruments}演奏]。",
    "这是{composer}的音乐[，节奏{tempo}][，{family}][，可以听到{instruments}][，{key}]"
    "[，{metre}]。",
    "{key}的乐曲[，{metre}][，{instruments}][，{family}][，节奏{tempo}]"
    "[，{composer}作曲]。",
    "一首{metre}的乐曲[，节奏{tempo}][，有{instruments}][，{family}][，{key}]"
    "[，{composer}]。",
)

TEMPLATES = {"en": ENGLISH, "zh": CHINESE}

# Everything that is known, always in the same words: what models are compared on.
FULL = {
    "en": "Music[ by {composer}][ for {family}][, played on {instruments}][, in {key}]"
    "[, in {metre}][, at a {tempo} tempo].",
    "zh": "[{composer}的]音乐[，为{family}而作][，由{instruments}演奏][，{key}]"
    "[，{metre}][，节奏{tempo}]。",
}

_OPTIONAL = re.compile(r"\[([^\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")


def instrument_names(name: str, language: str) -> tuple[str, ...]:
    """What an instrument is called."""
    return (_CHINESE.get(name, name) if language == "zh" else name,)


def family_names(name: str, language: str) -> tuple[str, ...]:
    """What a family of instruments is called."""
    return FAMILIES[name][LANGUAGES.index(language)] if name in FAMILIES else (name,)


def composer_names(name: str, language: str) -> tuple[str, ...]:
    """What a composer is called."""
    if name == UNKNOWN_COMPOSER:
        return ()
    if name not in COMPOSERS:
        return (name,)
    short, full_chinese, short_chinese = COMPOSERS[name]
    return (full_chinese, short_chinese) if language == "zh" else (name, short)


def key_names(name: str, language: str) -> tuple[str, ...]:
    """What a key is called, exactly and by its mode alone."""
    found = _KEY.fullmatch(name)
    if not found:
        return (name,)
    tonic, sign, mode = found.groups()
    english, chinese = _SIGNS[sign]
    if language == "zh":
        return f"{chinese}{tonic}{_MODES[mode]}", _MODES[mode]
    return f"{tonic}{english} {mode}", f"a {mode} key"


def tempo_names(tempo: float | str, language: str) -> tuple[str, ...]:
    """Words for a tempo."""
    if isinstance(tempo, str):
        return (tempo,)
    words = next(words for limit, *words in TEMPI if tempo < limit)
    return words[LANGUAGES.index(language)]


def metre_names(metre: str, language: str) -> tuple[str, ...]:
    """What a time signature is called."""
    return (f"{metre}拍" if language == "zh" else f"{metre} time",)


def fill(template: str, values: dict[str, str]) -> str:
    """Puts values into a template."""

    def part(found: re.Match) -> str:
        text = found[1]
        return text if all(kind in values for kind in _SLOT.findall(text)) else ""

    text = _SLOT.sub(lambda found: values[found[1]], _OPTIONAL.sub(part, template))
    return text[:1].upper() + text[1:]


def fitting_templates(language: str, kinds: Collection[str]) -> list[str]:
    """Finds the templates that name all of some kinds and need no other."""
    kinds = set(kinds)
    return [
        template
        for template in TEMPLATES[language]
        if _kinds_needed(template) <= kinds <= set(_SLOT.findall(template))
    ]


@lru_cache
def _kinds_needed(template: str) -> set[str]:
    """The kinds outside brackets."""
    return set(_SLOT.findall(_OPTIONAL.sub("", template)))
