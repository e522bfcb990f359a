"""How the reference reads the source: records have constructors, and a layer shows what it exports."""

import inspect
import re
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
    """Shows what a layer exports under the file that defines it, and nothing else of that file."""

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        for layer in pkg.modules.values():
            if layer.is_init_module:
                exported = set(layer.exports or ())
                for name in exported:
                    layer.members[name].public = False  # shown once, where it is defined
                _publish(layer, exported)


def _publish(folder: griffe.Module, exported: set[str]) -> bool:
    """Make public what is exported of the files of a folder; whether anything is."""
    files = [file for file in folder.modules.values() if not file.is_alias]  # what is imported is elsewhere
    for file in files:
        if file.name in exported and file.name not in file.members:  # exported whole
            file.public = True
        else:
            own = [m for m in file.members.values() if not m.is_alias and not m.is_module]
            for member in own:
                member.public = member.name in exported
            file.public = any(m.public for m in own) | _publish(file, exported)
    return any(file.public for file in files)


class Sections(griffe.Extension):
    """`Example:` is a section of doctests, as `Examples:` is to griffe; `Reference:` is a paragraph, not a box."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            text = re.sub(r"(?m)^Example:$", "Examples:", obj.docstring.value)
            obj.docstring.value = re.sub(r"(?m)^Reference:((?: .+)?\n?(?: {4}.*\n?)*)", _paragraph, text)


def _paragraph(section: re.Match[str]) -> str:
    return f"**Reference:** {inspect.cleandoc(section[1])}\n"
