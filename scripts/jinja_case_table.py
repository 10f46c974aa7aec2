#!/usr/bin/env python3
"""Writes src/text/jinja/case_table.cc: characters that Python's upper() or title() turns into several.

  jinja_case_table.py > src/text/jinja/case_table.cc
"""
import sys


def literal(text):
    """Escaped, and closed after each escape: a digit that follows must not join it."""
    return " ".join('"' + "".join(f"\\x{byte:02x}" for byte in char.encode()) + '"' for char in text)


def main():
    print("// Characters whose upper case or title case is several characters. Written by scripts/jinja_case_table.py from\n"
          f"// Python {sys.version_info[0]}.{sys.version_info[1]}; do not edit.\n"
          '#include "text/jinja/case_table.h"\n\n// clang-format off\nnamespace upg::jinja {\nnamespace {\n\n'
          "constexpr LongCase kRows[] = {")
    for code in range(0x110000):
        char = chr(code)
        if not 0xd800 <= code < 0xe000 and (len(char.upper()) > 1 or len(char.title()) > 1):
            print(f"    {{0x{code:04x}, {literal(char.upper())}, {literal(char.title())}}},")
    print("};\n\n}  // namespace\n\nconst std::span<const LongCase> kLongCases{kRows};\n\n}  // namespace upg::jinja")


if __name__ == "__main__":
    main()
