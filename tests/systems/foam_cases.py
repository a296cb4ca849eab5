"""Cases of OpenFOAM in one layer of cells, laid out as blockMesh and its solvers write them in ASCII."""

import itertools

import numpy as np

HEAD = """/*---*- C++ -*---*\\
| =========                 |
\\*---*/
FoamFile
{{
    version     2.0;
    format      ascii;
    class       {kind};
    object      {name};
}}
// * * * * * //

"""


def centres(nx, ny):
    """Centres of the cells of the unit square, x fastest."""
    return np.array([[(i + 0.5) / nx, (j + 0.5) / ny] for j in range(ny) for i in range(nx)])


def listed(rows):
    return f"{len(rows)}\n(\n" + "\n".join(rows) + "\n)\n"


def write(path, kind, body):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEAD.format(kind=kind, name=path.name) + body + "\n// ***** //\n")


def mesh(case, nx, ny):
    """nx x ny cells in one layer: inner faces first, as OpenFOAM orders them."""
    corner = {key: n for n, key in enumerate(itertools.product(range(2), range(ny + 1), range(nx + 1)))}  # z, y, x
    points = [f"({x / nx} {y / ny} {0.1 * z})" for z, y, x in corner]
    inner, outer = [], []
    for j, i in itertools.product(range(ny), range(nx + 1)):  # faces across x
        face = [corner[z, y, i] for z, y in ((0, j), (0, j + 1), (1, j + 1), (1, j))]
        cells = [k * 1 + j * nx for k in (i - 1, i) if 0 <= k < nx]
        (inner if len(cells) == 2 else outer).append((face, cells))
    for j, i in itertools.product(range(ny + 1), range(nx)):  # across y
        face = [corner[z, j, x] for z, x in ((0, i), (0, i + 1), (1, i + 1), (1, i))]
        cells = [i + k * nx for k in (j - 1, j) if 0 <= k < ny]
        (inner if len(cells) == 2 else outer).append((face, cells))
    for z, j, i in itertools.product(range(2), range(ny), range(nx)):  # front and back
        outer.append(([corner[z, y, x] for y, x in ((j, i), (j, i + 1), (j + 1, i + 1), (j + 1, i))], [i + j * nx]))
    faces = [*inner, *outer]
    place = case / "constant" / "polyMesh"
    write(place / "points", "vectorField", listed(points))
    write(place / "faces", "faceList", listed([f"4({' '.join(map(str, face))})" for face, _ in faces]))
    write(place / "owner", "labelList", listed([str(cells[0]) for _, cells in faces]))
    write(place / "neighbour", "labelList", listed([str(cells[1]) for _, cells in inner]))
