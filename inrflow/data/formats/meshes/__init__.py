"""Formats of fields on meshes: VTK, XDMF, Tecplot, EnSight, OpenFOAM, COMSOL."""
