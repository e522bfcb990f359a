"""How the reference reads the source: records have constructors, and a layer opens with a table of what it exports."""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import griffe

DATACLASS = griffe.Decorator(griffe.ExprName("dataclasses.dataclass"), lineno=None, endlineno=None)


def is_record(cls: griffe.Class) -> bool:
    return any(str(d.value).rpartition(".")[2] == "record" for d in cls.decorators)


def is_named_tuple(cls: griffe.Class) -> bool:
    return any(str(base) == "NamedTuple" for base in cls.bases)


class Records(griffe.Extension):
    """Shows a record, and a NamedTuple, by the arguments that make it."""

    def on_class_members(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        if is_record(cls) or is_named_tuple(cls):
            cls.decorators.append(DATACLASS)  # griffe makes the constructor of a dataclass from its fields


class Layers(griffe.Extension):
    """Shows what a layer exports under the file that defines it, and nothing else of that file.

    The layer opens with a table of these names, in the order of the page, and the first sentence of what each says.
    """

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        for layer in pkg.modules.values():
            if layer.is_init_module:
                exported = set(layer.exports or ())
                for name in exported:
                    layer.members[name].public = False  # shown once, where it is defined
                _publish(layer, exported)
                if layer.docstring:  # what is private has no page
                    first, *rest = layer.docstring.value.split("\n\n", 1)
                    layer.docstring.value = "\n\n".join([first, _contents(layer, exported), *rest])


def _contents(layer: griffe.Module, exported: set[str]) -> str:
    rows = [f"| [`{x.name}`][{x.path}] | {_first_sentence(x)} |" for x in _shown(layer, exported)]
    return "\n".join(["| name | one line |", "|---|---|", *rows])


def _shown(folder: griffe.Module, exported: set[str]) -> Iterator[griffe.Object]:
    """What is exported, as the page has it: file by file, and of a file attributes, then classes, then functions."""
    for _, file in sorted((name, file) for name, file in folder.modules.items() if not file.is_alias):
        if _whole(file, exported):
            yield file
        elif file.is_init_module:
            yield from _shown(file, exported)
        else:
            own = [m for m in file.members.values() if not m.is_alias and m.name in exported]
            kinds = griffe.Kind.ATTRIBUTE, griffe.Kind.CLASS, griffe.Kind.FUNCTION
            yield from sorted(own, key=lambda m: (kinds.index(m.kind), m.lineno))


def _first_sentence(x: griffe.Object) -> str:
    text = " ".join(x.docstring.value.split("\n\n")[0].split())
    return re.sub(r"(?<=\.) .*", "", text).replace("|", r"\|")


def _publish(folder: griffe.Module, exported: set[str]) -> bool:
    """Make public what is exported of the files of a folder; whether anything is."""
    files = [file for file in folder.modules.values() if not file.is_alias]  # what is imported is elsewhere
    for file in files:
        if _whole(file, exported):
            file.public = True
        else:
            own = [m for m in file.members.values() if not m.is_alias and not m.is_module]
            for member in own:
                member.public = member.name in exported
            file.public = any(m.public for m in own) | _publish(file, exported)
    return any(file.public for file in files)


def _whole(file: griffe.Module, exported: set[str]) -> bool:
    """Whether the file itself is exported, and not what has its name."""
    return file.name in exported and file.name not in file.members


class Sections(griffe.Extension):
    """`Example:` is a section of doctests, as `Examples:` is to griffe; `Reference:` is a paragraph, not a box."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            text = re.sub(r"(?m)^Example:$", "Examples:", obj.docstring.value)
            obj.docstring.value = re.sub(r"(?m)^Reference:((?: .+)?\n?(?: {4}.*\n?)*)", _paragraph, text)


def _paragraph(section: re.Match[str]) -> str:
    return f"**Reference:** {inspect.cleandoc(section[1])}\n"
