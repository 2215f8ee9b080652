"""What a Mermaid flowchart of docs/architecture shows: boxes, resources and arrows."""

import re
from dataclasses import dataclass, field

BOX = re.compile(r'subgraph ([\w-]+)\["(\w+) · ([\w-]+)"\]')
NODE = re.compile(r'([\w-]+)\(?\[\(?"([^"]+)"\)?\]\)?(:::optional)?')
ARROW = re.compile(r"([\w-]+) (-->|-\.->|-\. (\w+) \.->) ([\w-]+)")


@dataclass
class Drawing:
    """By name; resources that share a frame are taken apart."""

    kinds: dict[str, str] = field(default_factory=dict)  # the first line of a frame
    boxes: dict[str, str | None] = field(default_factory=dict)  # resource → the box it is in
    conditions: dict[str, str] = field(default_factory=dict)
    arrows: set[tuple[str, str]] = field(default_factory=set)  # (earlier, later)
    dotted: set[tuple[str, str]] = field(default_factory=set)

    def waits(self, name: str) -> set[str]:
        """What it waits for, by its own arrows and those of its box."""
        return {earlier for earlier, later in self.arrows if later in (name, self.boxes[name])}


def read(text: str) -> Drawing:
    """Take a diagram apart; a line that is none of those used here is an error."""
    drawing, frames, box = Drawing(), dict[str, list[str]](), None
    pairs: list[tuple[str, str, bool]] = []
    for line in map(str.strip, text.splitlines()):
        if found := BOX.fullmatch(line):
            box = found[1]
            drawing.kinds[box], drawing.boxes[box], frames[box] = found[2], None, [box]
        elif line == "end":
            box = None
        elif found := ARROW.fullmatch(line):
            pairs.append((found[1], found[4], found[2] != "-->"))
        elif found := NODE.fullmatch(line):
            kind, *lines = found[2].split("<br>")
            conditions = [line.removeprefix("if ") for line in lines if line.startswith("if ")]
            frames[found[1]] = [line for line in lines if not line.startswith("if ")] or [found[1]]
            assert bool(found[3]) == bool(conditions), f"a frame with a condition is dashed: {line}"
            for name in frames[found[1]]:
                drawing.kinds[name], drawing.boxes[name] = kind, box
                drawing.conditions.update(dict.fromkeys([name] if conditions else [], "".join(conditions)))
        else:
            assert re.match(r"%%|flowchart LR$|accTitle: |direction LR$|classDef |$", line), f"not understood: {line}"
    for earlier, later, is_dotted in pairs:
        arrows = drawing.dotted if is_dotted else drawing.arrows
        arrows |= {(one, other) for one in frames[earlier] for other in frames[later]}
    return drawing
