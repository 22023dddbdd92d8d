"""English and Chinese names of what the embedded corpus labels.

Authors
 * The MuQ for SpeechBrain team 2026
"""

import re

LANGUAGES = ("en", "zh")

# Chinese names of `muq_plugins.data.corpus.INSTRUMENTS`.
INSTRUMENTS = {
    "acoustic grand piano": "三角钢琴",
    "bright acoustic piano": "明亮的钢琴",
    "electric grand piano": "电三角钢琴",
    "honky-tonk piano": "酒吧钢琴",
    "electric piano": "电钢琴",
    "chorused electric piano": "合唱效果电钢琴",
    "harpsichord": "羽管键琴",
    "clavinet": "击弦古钢琴",
    "celesta": "钢片琴",
    "glockenspiel": "钟琴",
    "music box": "八音盒",
    "vibraphone": "颤音琴",
    "marimba": "马林巴",
    "xylophone": "木琴",
    "tubular bells": "管钟",
    "dulcimer": "扬琴",
    "drawbar organ": "拉杆风琴",
    "percussive organ": "敲击风琴",
    "rock organ": "摇滚风琴",
    "church organ": "管风琴",
    "reed organ": "簧风琴",
    "accordion": "手风琴",
    "harmonica": "口琴",
    "bandoneon": "班多钮手风琴",
    "nylon-string guitar": "尼龙弦吉他",
    "steel-string guitar": "钢弦吉他",
    "jazz guitar": "爵士吉他",
    "clean electric guitar": "清音电吉他",
    "muted electric guitar": "闷音电吉他",
    "overdriven guitar": "过载吉他",
    "distortion guitar": "失真吉他",
    "violin": "小提琴",
    "viola": "中提琴",
    "cello": "大提琴",
    "contrabass": "低音提琴",
    "tremolo strings": "震音弦乐",
    "pizzicato strings": "拨奏弦乐",
    "string ensemble": "弦乐合奏",
    "slow string ensemble": "慢起弦乐合奏",
    "synth strings": "合成弦乐",
    "slow synth strings": "慢起合成弦乐",
    "trumpet": "小号",
    "trombone": "长号",
    "tuba": "大号",
    "muted trumpet": "弱音小号",
    "French horn": "圆号",
    "brass section": "铜管组",
    "synth brass": "合成铜管",
    "soft synth brass": "柔和合成铜管",
    "soprano saxophone": "高音萨克斯",
    "alto saxophone": "中音萨克斯",
    "tenor saxophone": "次中音萨克斯",
    "baritone saxophone": "上低音萨克斯",
    "oboe": "双簧管",
    "English horn": "英国管",
    "bassoon": "大管",
    "clarinet": "单簧管",
    "piccolo": "短笛",
    "flute": "长笛",
    "recorder": "竖笛",
    "pan flute": "排箫",
    "blown bottle": "吹瓶",
    "shakuhachi": "尺八",
    "ocarina": "陶笛",
}

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


def instrument_names(name: str, language: str) -> tuple[str, ...]:
    """What an instrument is called.

    Arguments
    ---------
    name : str
        Its English name.
    language : str
        One of `LANGUAGES`.

    Returns
    -------
    tuple of str
        At least one name. One that is not in `INSTRUMENTS` stays as it is.

    Example
    -------
    >>> instrument_names("flute", "zh"), instrument_names("sitar", "zh")
    (('长笛',), ('sitar',))
    """
    return (INSTRUMENTS.get(name, name) if language == "zh" else name,)


def family_names(name: str, language: str) -> tuple[str, ...]:
    """What a family of instruments is called.

    Arguments
    ---------
    name : str
        One of `FAMILIES`; any other stays as it is.
    language : str
        One of `LANGUAGES`.

    Returns
    -------
    tuple of str
        The usual name first.

    Example
    -------
    >>> family_names("brass", "zh")[0]
    '铜管乐器'
    """
    return FAMILIES[name][LANGUAGES.index(language)] if name in FAMILIES else (name,)


def composer_names(name: str, language: str) -> tuple[str, ...]:
    """What a composer is called.

    Arguments
    ---------
    name : str
        The full name in English; one that is not in `COMPOSERS` stays as it is.
    language : str
        One of `LANGUAGES`.

    Returns
    -------
    tuple of str
        The full name first; none for `UNKNOWN_COMPOSER`.

    Example
    -------
    >>> composer_names("Giuseppe Verdi", "en")
    ('Giuseppe Verdi', 'Verdi')
    """
    if name == UNKNOWN_COMPOSER:
        return ()
    if name not in COMPOSERS:
        return (name,)
    short, full_chinese, short_chinese = COMPOSERS[name]
    return (full_chinese, short_chinese) if language == "zh" else (name, short)


def key_names(name: str, language: str) -> tuple[str, ...]:
    """What a key is called, exactly and by its mode alone.

    Arguments
    ---------
    name : str
        Such as "Bb major"; any other text stays as it is.
    language : str
        One of `LANGUAGES`.

    Returns
    -------
    tuple of str
        The exact name first.

    Example
    -------
    >>> key_names("Bb major", "en"), key_names("F# minor", "zh")
    (('B-flat major', 'a major key'), ('升F小调', '小调'))
    """
    found = _KEY.fullmatch(name)
    if not found:
        return (name,)
    tonic, sign, mode = found.groups()
    english, chinese = _SIGNS[sign]
    if language == "zh":
        return f"{chinese}{tonic}{_MODES[mode]}", _MODES[mode]
    return f"{tonic}{english} {mode}", f"a {mode} key"


def tempo_names(tempo: float | str, language: str) -> tuple[str, ...]:
    """Words for a tempo.

    Arguments
    ---------
    tempo : float or str
        Quarter notes per minute; a word stays as it is.
    language : str
        One of `LANGUAGES`.

    Returns
    -------
    tuple of str
        Adjectives.

    Example
    -------
    >>> tempo_names(150.0, "en"), tempo_names(60, "zh")
    (('fast', 'quick'), ('很慢', '庄重'))
    """
    if isinstance(tempo, str):
        return (tempo,)
    words = next(words for limit, *words in TEMPI if tempo < limit)
    return words[LANGUAGES.index(language)]


def metre_names(metre: str, language: str) -> tuple[str, ...]:
    """What a time signature is called.

    Arguments
    ---------
    metre : str
        Such as "3/4".
    language : str
        One of `LANGUAGES`.

    Returns
    -------
    tuple of str
        Its name.

    Example
    -------
    >>> metre_names("3/4", "en"), metre_names("6/8", "zh")
    (('3/4 time',), ('6/8拍',))
    """
    return (f"{metre}拍" if language == "zh" else f"{metre} time",)
