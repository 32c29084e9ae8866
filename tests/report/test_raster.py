"""Pixels: our PNG encoder against the bytes of the format, colours of values, and drawings as PNG by resvg."""

import struct
import sys
import zlib

import numpy as np
import pytest

from modularity.errors import InputError
from modularity.report import raster
from modularity.report.raster import coloured, data_uri, png_image, png_problems, svg_to_png


def decoded(png: bytes) -> np.ndarray:
    """Pixels of a PNG image without filters."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, pixels, size = 8, b"", (0, 0)
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at : at + 8])
        data = png[at + 8 : at + 8 + length]
        assert struct.unpack(">I", png[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + data)
        size = struct.unpack(">II", data[:8]) if kind == b"IHDR" else size
        pixels += data if kind == b"IDAT" else b""
        at += 12 + length
    lines = np.frombuffer(zlib.decompress(pixels), np.uint8).reshape(size[1], 1 + 3 * size[0])
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(size[1], size[0], 3)


def test_an_image_holds_its_colours() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (3, 5, 3)).astype(np.uint8)
    assert (decoded(png_image(colours)) == colours).all()
    assert data_uri(png_image(colours)).startswith("data:image/png;base64,iVBORw0KGgo")


def test_colours_of_values_and_of_missing_ones() -> None:
    found = coloured(np.array([[-1.0, 0.0, 1.0, 9.0, np.nan]]), ("#000000", "#ff0000", "#ffffff"), low=-1, high=1)
    assert found[0].tolist() == [[0, 0, 0], [255, 0, 0], [255, 255, 255], [255, 255, 255], [0xEC, 0xEE, 0xF0]]


def test_a_scale_or_package_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "expected a number above 0" in png_problems(0.0)[0]
    monkeypatch.setattr(raster, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install resvg-py"):
        svg_to_png("<svg/>", 1.0)


def test_a_drawing_with_text_becomes_a_png() -> None:
    pytest.importorskip("resvg_py")
    style = "<style>text{font-family:Nowhere,sans-serif}</style>"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="20">{style}'
    plain, lettered = (svg_to_png(f'{head}<text x="2" y="15">{word}</text></svg>', 2.0) for word in ("", "MMM"))
    assert struct.unpack(">II", plain[16:24]) == (80, 40)
    assert plain != lettered


def test_without_any_font_the_reason_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        @staticmethod
        def svg_to_bytes(**options: object) -> bytes:
            return b"nothing"

    monkeypatch.setitem(sys.modules, "resvg_py", Silent)
    monkeypatch.setattr(raster, "find_spec", lambda name: object())
    raster.sans_serif.cache_clear()
    assert "need a font for their labels" in png_problems(3.0)[0]
    raster.sans_serif.cache_clear()
