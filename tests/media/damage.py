"""Random damage to files, the same for the same chance."""

import random

WORDS = [
    *(
        b"-->",
        b"00:00:01,000 --> 00:00:02,000\n",
        b"99:99:99,999",
        b"{\\p1}",
        b"{1}{2}",
        b"{",
        b"}",
        b"<v ",
        b"<",
        b">",
    ),
    *(b"Dialogue: ", b"Format: ", b"[Events]\n", b"WEBVTT\n", b"\n\n", b"\r", b"\0", b"\xff\xfe", b"\xef\xbb\xbf"),
    *("\u0663\u00b2\u202e\ufeff\u2028".encode(), b"&#99999999999;", b"9" * 400, b"1e999", b"-", b",", b":", b"nan"),
]
NUMBERS = [b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\0\0\0\x80", b"\0\0\0\x01", b"\xff" * 8]


def damaged(data: bytes, chance: random.Random, other: bytes = b"", words: bool = False) -> bytes:
    """`data` with a few to many changes, mostly near its beginning, where headers are; pieces of `other` come in.

    `words` puts in what subtitle files are made of.
    """
    changed = bytearray(data)
    for _ in range(chance.choice([1, 1, 3, 10, 40])):
        place = chance.randrange(len(changed) if chance.random() < 0.6 else min(len(changed), 1000))
        kind = chance.choice(["word"] * 4 + KINDS) if words else chance.choice(KINDS)
        match kind:
            case "bit":
                changed[place] ^= 1 << chance.randrange(8)
            case "noise":
                changed[place : place + 4] = chance.randbytes(4)
            case "number":
                number = chance.choice(NUMBERS)
                changed[place : place + len(number)] = number
            case "step":
                changed[place] = (changed[place] + chance.choice([-1, 1])) % 256
            case "loss":
                del changed[place : place + chance.randrange(1, 64)]
            case "large loss":
                del changed[place : place + chance.randrange(1, 2 + len(changed) // 4)]
            case "end":
                del changed[max(place, len(changed) // 8) :]
            case "again":
                source = chance.randrange(len(changed))
                changed[place:place] = changed[source : source + chance.randrange(1, 200)]
            case "other" if other:
                source = chance.randrange(len(other))
                changed[place:place] = other[source : source + chance.choice([8, 100, 4000])]
            case "word":
                changed[place:place] = chance.choice(WORDS)
        changed = changed or bytearray(b"x")
    return bytes(changed)


KINDS = ["bit", "bit", "noise", "number", "number", "step", "loss", "large loss", "end", "again", "other"]
