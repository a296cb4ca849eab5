"""Cases of EnSight Gold, ASCII or C binary, laid out as chapter 9.1 of its manual says."""

import numpy as np

CASE = """# written by a test
FORMAT
type: ensight gold

GEOMETRY
model: {name}.geo

VARIABLE
{variables}

TIME
time set: 1 steps
number of steps: {steps}
filename start number: 3
filename increment: 2
time values: {times}
"""


def write_case(path, nodes, parts, fields, times, binary=False, order="<", ids=False):
    """A case with the parts `{type of element: corners (E, n), counted from 0}`, each of all nodes (N, 3).

    fields: name -> ("node" or "element", values (T, N or {type: (T, E, ...)}, components)), the same in every part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.stem

    def write(target, items):
        with open(path.with_name(target), "wb") as file:
            for item in items:
                if isinstance(item, str):
                    file.write(item.encode().ljust(80) if binary else f"{item}\n".encode())
                    continue
                item = np.asarray(item)
                whole = item.dtype.kind == "i"
                if binary:
                    file.write(item.astype(f"{order}i4" if whole else f"{order}f4").tobytes())
                    continue
                rows = item.reshape(-1, item.shape[-1] if item.ndim > 1 and whole else 1)
                file.writelines(("".join(f"{one:10d}" if whole else f"{one:16.8e}" for one in row) + "\n").encode()
                                for row in rows)

    shown = "given" if ids else "off"
    items = [*(["C Binary"] if binary else []), "first line", "", f"node id {shown}", f"element id {shown}"]
    for number, part in enumerate(parts, 1):
        items += ["part", [number], f"part {number}", "coordinates", [len(nodes)]]
        items += [np.arange(len(nodes))] if ids else []
        items += [nodes.T.ravel()]
        for kind, corners in part.items():
            items += [kind, [len(corners)], *([np.arange(len(corners))] if ids else []), np.asarray(corners) + 1]
    write(f"{name}.geo", items)
    lines = []
    for label, (where, values) in fields.items():
        first = values if where == "node" else next(iter(values.values()))
        lines.append(f"{'vector' if first.ndim == 3 else 'scalar'} per {where}: 1 {label} {name}_{label}.***")
        for step in range(len(times)):
            items = [label]
            for number, part in enumerate(parts, 1):
                items += ["part", [number]]
                held = {"coordinates": values} if where == "node" else {kind: values[kind] for kind in part}
                for kind, one in held.items():
                    items += [kind, one[step].T.ravel()]
            write(f"{name}_{label}.{3 + 2 * step:03d}", items)
    path.write_text(CASE.format(name=name, variables="\n".join(lines), steps=len(times),
                                times="\n".join(map(repr, map(float, times)))))
