"""Two small displays behind one interface: an e-ink screen, drawn with Pillow, and a character LCD. Both run without hardware.

A display has a number of rows, knows whether a line fits in one, and shows lines. To drive another one, write a class like these.
"""

import unicodedata
from pathlib import Path
from typing import Protocol

WHITE, THRESHOLD = 255, 170  # of grey: what is darker becomes black


class Display(Protocol):
    """A display of text."""

    rows: int
    """Number of lines that it shows at once."""

    def fits(self, line: str) -> bool:
        """Whether a line fits in a row."""
        ...

    def show(self, lines: list[str]) -> None:
        """Replace what is shown by at most `rows` lines."""
        ...


def wrap(text: str, display: Display) -> list[str]:
    """Break a text into lines that fit in a display's rows, between words where that is possible."""
    lines = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            if line and not display.fits(f"{line} {word}"):
                lines.append(line)
                line = ""
            line = f"{line} {word}" if line else word
            while not display.fits(line):  # a word that is longer than a row
                end = next(end for end in range(len(line) - 1, 0, -1) if end == 1 or display.fits(line[:end]))
                lines.append(line[:end])
                line = line[end:]
        lines.append(line)
    return lines


def typed(character: str, lines: list[str], display: Display) -> list[str]:
    """The lines after another character, which moves its word to a new line if that gets too long."""
    *before, line = lines
    if character == "\n":
        return [*lines, ""]
    if display.fits((line + character).rstrip()):
        return [*before, line + character]
    kept, space, word = (line + character).rpartition(" ")
    return [*before, kept, word] if space else [*lines, character]


class EInk:
    """An e-ink screen of 250 x 122 pixels, black and white: each page is a PNG file."""

    def __init__(self, file: Path, font: Path | None = None, size: int = 13) -> None:
        """
        Args:
            file: the PNG file, replaced by each page.
            font: a TrueType font; by default Pillow's, which has only Latin letters.
            size: of the font, in pixels.
        """
        from PIL import Image, ImageDraw, ImageFont

        self._file = file
        self._font = ImageFont.truetype(str(font), size) if font else ImageFont.load_default(size)
        self._image = Image.new("L", (250, 122), WHITE)
        self._draw = ImageDraw.Draw(self._image)
        self._margin, self._row = 4, round(1.25 * size)
        self.rows = (self._image.height - 2 * self._margin) // self._row
        # The screen: from waveshare_epd import epd2in13_V4
        # self._screen = epd2in13_V4.EPD(); self._screen.init()

    def fits(self, line: str) -> bool:
        return self._draw.textlength(line, self._font) <= self._image.width - 2 * self._margin

    def show(self, lines: list[str]) -> None:
        self._draw.rectangle((0, 0, *self._image.size), fill=WHITE)
        for number, line in enumerate(lines):
            self._draw.text((self._margin, self._margin + number * self._row), line, fill=0, font=self._font)
        page = self._image.point([0] * THRESHOLD + [WHITE] * (256 - THRESHOLD)).convert("1")
        # The screen: self._screen.display(self._screen.getbuffer(page))
        page.save(self._file, "PNG")


class CharacterLCD:
    """A character LCD of 20 x 4 (HD44780): a box on stdout, drawn again in place on a terminal."""

    columns, rows = 20, 4

    def __init__(self, in_place: bool = True) -> None:
        """
        Args:
            in_place: draw each box over the one before it, as a terminal can.
        """
        self._again = f"\x1b[{self.rows + 2}A" if in_place else ""
        self._before = ""
        # The LCD: from RPLCD.i2c import CharLCD
        # self._lcd = CharLCD("PCF8574", 0x27, cols=20, rows=4, auto_linebreaks=False)

    def fits(self, line: str) -> bool:
        return len(in_rom(line)) <= self.columns

    def show(self, lines: list[str]) -> None:
        shown = [in_rom(line).ljust(self.columns) for line in (*lines, *[""] * self.rows)][: self.rows]
        # The LCD: self._lcd.home(); self._lcd.write_string("\r\n".join(shown))
        border = f"+{'-' * self.columns}+"
        print(self._before + "\n".join([border, *(f"|{line}|" for line in shown), border]), flush=True)
        self._before = self._again


ROM = {chr(code) for code in range(0x20, 0x7E)} - {"\\"}
"""The characters that every HD44780 has: ASCII without the backslash and the tilde, which are ¥ and → in the ROM A00."""
SPELLED = {"‘": "'", "’": "'", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "–": "-", "—": "-", "…": "...", "ß": "ss"}  # noqa: RUF001


def in_rom(text: str) -> str:
    """The text in the characters of an HD44780: accents are left out, and what has no likeness is a question mark."""
    spelled = unicodedata.normalize("NFKD", "".join(SPELLED.get(character, character) for character in text))
    return "".join(character if character in ROM else "?" for character in spelled if not unicodedata.combining(character))
