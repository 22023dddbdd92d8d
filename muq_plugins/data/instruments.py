"""The instruments that music is rendered on and captions name, by family.

Of General MIDI are left out: sound effects, drums, synthesizers and ethnic instruments,
which suit four-part writing badly; the harp and the timpani, which sound like no other
member of their family; and the whistle (78), for which the soundfont has no middle
register.
"""

from typing import NamedTuple

from muq_plugins.errors import UserError


class Instrument(NamedTuple):
    """A General MIDI instrument."""

    name: str  # in English
    chinese: str  # in Chinese
    low: int  # lowest MIDI pitch that it is given
    high: int  # highest MIDI pitch that it is given


# The families of General MIDI, with its string ensembles among the strings.
_BY_FAMILY = {
    "piano": {
        0: Instrument("acoustic grand piano", "三角钢琴", 28, 98),
        1: Instrument("bright acoustic piano", "明亮的钢琴", 28, 98),
        2: Instrument("electric grand piano", "电三角钢琴", 28, 98),
        3: Instrument("honky-tonk piano", "酒吧钢琴", 28, 98),
        4: Instrument("electric piano", "电钢琴", 28, 98),
        5: Instrument("chorused electric piano", "合唱效果电钢琴", 28, 98),
        6: Instrument("harpsichord", "羽管键琴", 29, 89),
        7: Instrument("clavinet", "击弦古钢琴", 29, 89),
    },
    "chromatic percussion": {
        8: Instrument("celesta", "钢片琴", 60, 100),
        9: Instrument("glockenspiel", "钟琴", 67, 103),
        10: Instrument("music box", "八音盒", 60, 96),
        11: Instrument("vibraphone", "颤音琴", 53, 89),
        12: Instrument("marimba", "马林巴", 43, 91),
        13: Instrument("xylophone", "木琴", 60, 96),
        14: Instrument("tubular bells", "管钟", 55, 82),
        15: Instrument("dulcimer", "扬琴", 48, 86),
    },
    "organ": {
        16: Instrument("drawbar organ", "拉杆风琴", 36, 96),
        17: Instrument("percussive organ", "敲击风琴", 36, 96),
        18: Instrument("rock organ", "摇滚风琴", 36, 96),
        19: Instrument("church organ", "管风琴", 33, 96),
        20: Instrument("reed organ", "簧风琴", 36, 96),
        21: Instrument("accordion", "手风琴", 41, 91),
        22: Instrument("harmonica", "口琴", 55, 91),
        23: Instrument("bandoneon", "班多钮手风琴", 41, 91),
    },
    "guitar": {
        24: Instrument("nylon-string guitar", "尼龙弦吉他", 40, 83),
        25: Instrument("steel-string guitar", "钢弦吉他", 40, 83),
        26: Instrument("jazz guitar", "爵士吉他", 40, 83),
        27: Instrument("clean electric guitar", "清音电吉他", 40, 84),
        28: Instrument("muted electric guitar", "闷音电吉他", 40, 84),
        29: Instrument("overdriven guitar", "过载吉他", 40, 84),
        30: Instrument("distortion guitar", "失真吉他", 40, 84),
    },
    "strings": {
        40: Instrument("violin", "小提琴", 55, 96),
        41: Instrument("viola", "中提琴", 48, 84),
        42: Instrument("cello", "大提琴", 36, 76),
        43: Instrument("contrabass", "低音提琴", 28, 60),
        44: Instrument("tremolo strings", "震音弦乐", 36, 90),
        45: Instrument("pizzicato strings", "拨奏弦乐", 36, 90),
        48: Instrument("string ensemble", "弦乐合奏", 36, 91),
        49: Instrument("slow string ensemble", "慢起弦乐合奏", 36, 91),
        50: Instrument("synth strings", "合成弦乐", 36, 91),
        51: Instrument("slow synth strings", "慢起合成弦乐", 36, 91),
    },
    "brass": {
        56: Instrument("trumpet", "小号", 54, 86),
        57: Instrument("trombone", "长号", 38, 74),
        58: Instrument("tuba", "大号", 28, 60),
        59: Instrument("muted trumpet", "弱音小号", 54, 86),
        60: Instrument("French horn", "圆号", 36, 77),
        61: Instrument("brass section", "铜管组", 36, 86),
        62: Instrument("synth brass", "合成铜管", 36, 88),
        63: Instrument("soft synth brass", "柔和合成铜管", 36, 88),
    },
    "reed": {
        64: Instrument("soprano saxophone", "高音萨克斯", 56, 88),
        65: Instrument("alto saxophone", "中音萨克斯", 49, 81),
        66: Instrument("tenor saxophone", "次中音萨克斯", 44, 76),
        67: Instrument("baritone saxophone", "上低音萨克斯", 36, 69),
        68: Instrument("oboe", "双簧管", 58, 91),
        69: Instrument("English horn", "英国管", 52, 81),
        70: Instrument("bassoon", "大管", 34, 72),
        71: Instrument("clarinet", "单簧管", 50, 89),
    },
    "pipe": {
        72: Instrument("piccolo", "短笛", 62, 100),
        73: Instrument("flute", "长笛", 58, 96),
        74: Instrument("recorder", "竖笛", 58, 96),
        75: Instrument("pan flute", "排箫", 55, 89),
        76: Instrument("blown bottle", "吹瓶", 55, 89),
        77: Instrument("shakuhachi", "尺八", 52, 84),
        79: Instrument("ocarina", "陶笛", 57, 91),
    },
}

FAMILIES = {family: tuple(members) for family, members in _BY_FAMILY.items()}
INSTRUMENTS = {
    program: instrument
    for members in _BY_FAMILY.values()
    for program, instrument in members.items()
}
_FAMILY_OF = {
    program: family for family, members in FAMILIES.items() for program in members
}


def family_of(program: int) -> str:
    """Tell the family of an instrument."""
    if program not in _FAMILY_OF:
        raise UserError(f"Program {program} is none of the corpus's instruments.")
    return _FAMILY_OF[program]
