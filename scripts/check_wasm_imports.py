#!/usr/bin/env python3
"""Checks that a wasm module imports only what a proxy-wasm host offers.

    check_wasm_imports.py MODULE.wasm

Envoy refuses a module with any other import, and only says so when it loads it. Reads the import
section as the WebAssembly core specification defines it (section 5.5.5). Run by wasm-build.sh.
"""

import sys

IMPORT_SECTION = 2
FUNCTION, TABLE, MEMORY, GLOBAL, TAG = range(5)


class Reader:
    """The module's bytes and how far they have been read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, length: int) -> bytes:
        taken = self.data[self.position : self.position + length]
        if len(taken) < length:
            raise ValueError("the module ends in the middle of something")
        self.position += length
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def unsigned(self) -> int:
        """An unsigned LEB128 integer."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def name(self) -> str:
        return self.take(self.unsigned()).decode()

    def limits(self) -> None:
        if self.byte() & 1:
            self.unsigned()
        self.unsigned()

    def skip_description(self) -> None:
        kind = self.byte()
        if kind == FUNCTION:
            self.unsigned()
        elif kind == TABLE:
            self.byte()
            self.limits()
        elif kind == MEMORY:
            self.limits()
        elif kind == GLOBAL:
            self.take(2)
        elif kind == TAG:
            self.byte()
            self.unsigned()
        else:
            raise ValueError(f"unknown kind of import {kind}")


def imports(module: bytes) -> list[tuple[str, str]]:
    """The (module, name) pairs that a wasm module imports."""
    reader = Reader(module)
    if reader.take(8) != b"\0asm\x01\0\0\0":
        raise ValueError("not a wasm module of version 1")
    while reader.position < len(module):
        section, length = reader.byte(), reader.unsigned()
        if section != IMPORT_SECTION:
            reader.take(length)
            continue
        found = []
        for _ in range(reader.unsigned()):
            found.append((reader.name(), reader.name()))
            reader.skip_description()
        return found
    return []


def is_offered(module: str, name: str) -> bool:
    return module == "wasi_snapshot_preview1" or (module == "env" and name.startswith("proxy_"))


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__.split("\n\n")[1].strip(), file=sys.stderr)
        return 2
    with open(sys.argv[1], "rb") as file:
        found = imports(file.read())
    refused = [f"{module}.{name}" for module, name in found if not is_offered(module, name)]
    if refused:
        print(f"{sys.argv[1]} imports what Envoy does not offer: {', '.join(refused)}", file=sys.stderr)
        return 1
    if not found:
        print(f"{sys.argv[1]} imports nothing: it can't be a proxy-wasm filter", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
