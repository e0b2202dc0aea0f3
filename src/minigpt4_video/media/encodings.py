"""The bytes of a text file to text, where nobody says in which encoding they are."""

import codecs
import re
from collections.abc import Callable

import chardet

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Guessing among all that there are mistakes short files; these are the ones that subtitles in the wild are written in.
ENCODINGS = [
    *("cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp1258", "cp874"),
    *("iso8859-2", "iso8859-5", "iso8859-6", "iso8859-7", "iso8859-8", "iso8859-9", "koi8-r", "koi8-u"),
    *("cp850", "cp852", "cp866", "mac-roman", "tis-620"),
    *("cp932", "euc_jis_2004", "iso2022_jp_2", "cp949", "euc_kr", "gb18030", "hz", "big5hkscs"),
]
# A few words of Chinese look like Korean or Japanese to the guesser: where many characters are among the commonest that
# an encoding can say, it is that one.
COMMONEST = {
    "gb18030": "的一是不了人我在有他这中大来上个到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可她里后小么"
    "心多天而能好都没起还发成事只想看走什吗吧干谢问题快跑朋友今气很爸妈回开呢哪怎样",
    "big5": "的一是不了人我在有他這中大來上個到說們為子和你地出道也時年得就那要下以生會自著去之過家學對可她裡後小麼"
    "心多天而能好都沒起還發成事只想看走什嗎吧幹謝問題快跑朋友今氣很爸媽回開呢哪怎樣",
}
COMMON_SHARE = 0.4
LATIN = {"cp1250", "cp1252", "cp1254", "cp1257", "cp1258", "iso8859-2", "iso8859-9", "cp850", "cp852", "mac-roman"}
# A few words of a western language look like an eastern one, and many of Italian: these, each between plain letters,
# are not.
WESTERN = frozenset("àâäçéèêëîïôöùûüÿœæñáíóúìòãõåøßÀÂÄÇÉÈÊËÎÏÔÖÙÛÜŒÆÑÁÍÓÚÃÕÅØ¿¡ºª’‘“”«»…–—€°")
NEIGHBOURS = re.compile(r"[^\W\d_A-Za-z]{2}")
# Hungarian's letters as cp1252 shows them: each is one of a western language too, and the guesser is seldom sure.
HUNGARIAN = frozenset("áéíóöõúüû")
NOT_PORTUGUESE = re.compile("õ(?!e)")
NOT_ESTONIAN = re.compile("[áéíóú]")
OF_OTHERS = 0.05
"""The share of letters beyond plain ones that names from other languages may have."""
SURE = 0.2
"""Of the guesser's confidence, which is small for all short texts."""
LEAST_VALID = 0.5
"""The share of a damaged text's characters that must be whole for it to be UTF-8."""


def decoded(data: bytes, is_likely: Callable[[str], bool]) -> tuple[str, bool] | None:
    """A text and whether characters of it are lost; None where it is none. `is_likely` knows such texts by their marks
    in plain letters, which bytes wrongly taken for text do not have."""
    for mark, name in BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            return data.decode(name, errors="replace"), False
    if b"\0" in data:  # also valid UTF-8, where all letters are of one alphabet
        for name in ("utf-16-le", "utf-16-be"):
            text = data.decode(name, errors="replace")
            if is_likely(text):
                return text, False
    if b"\x1b$" not in data:  # that begins Japanese in seven bits
        try:
            return data.decode("utf-8"), False
        except UnicodeDecodeError:
            pass
    words = b"\n".join(line for line in data.splitlines() if not line.isascii() or b"\x1b$" in line)
    if _is_mostly_utf8(words):
        return data.decode("utf-8", errors="replace"), True
    for name in _guesses(words):
        if name in COMMONEST:
            text = data.decode(name, errors="replace")
            return text, "\ufffd" in text
        try:
            return data.decode(name), False
        except (UnicodeDecodeError, LookupError):
            continue
    text = data.decode("utf-8", errors="replace")
    return (text, True) if is_likely(text) else None


def _is_mostly_utf8(words: bytes) -> bool:
    text = words.decode("utf-8", errors="replace")
    foreign = sum(not letter.isascii() for letter in text)
    return foreign > 0 and 1 - text.count("\ufffd") / foreign > LEAST_VALID


def _guesses(words: bytes) -> list[str]:
    """Encodings in which words may be, the likeliest first."""
    likely = [name for name, commonest in COMMONEST.items() if _commonness(words, name, commonest) >= COMMON_SHARE]
    if _is_hungarian(words):
        likely.append("cp1250")
    guess = chardet.detect(words, include_encodings=ENCODINGS)
    name = guess["encoding"]
    is_doubtful = name is None or guess["confidence"] < SURE or codecs.lookup(name).name not in LATIN
    if is_doubtful and _is_western(words):
        likely.append("cp1252")
    return likely if name is None else [*likely, name]


def _commonness(words: bytes, encoding: str, commonest: str) -> float:
    """The share of a text's letters beyond plain ones, lost ones too, that are among the commonest Chinese ones."""
    text = words.decode(encoding, errors="replace")
    characters = [letter for letter in text if not letter.isascii() and (letter.isalpha() or letter == "\ufffd")]
    return sum(letter in commonest for letter in characters) / max(1, len(characters))


def _is_western(words: bytes) -> bool:
    text = words.decode("cp1252", errors="replace")
    is_western = not text.isascii() and all(letter.isascii() or letter in WESTERN for letter in text)
    return is_western and not NEIGHBOURS.search(text)


def _is_hungarian(words: bytes) -> bool:
    """Whether õ and û must be ő and ű: with no letters of Portuguese, Estonian or French, and few beyond plain ones."""
    text = words.decode("cp1252", errors="replace").lower()
    letters = [letter for letter in text if letter.isalpha()]
    signs = [letter for letter in letters if not letter.isascii()]
    return (
        2 * len(signs) <= len(letters)
        and sum(sign not in HUNGARIAN for sign in signs) <= OF_OTHERS * len(signs)
        and NOT_PORTUGUESE.search(text) is not None
        and NOT_ESTONIAN.search(text) is not None
    )
