"""Fields on meshes and cells of solvers: VTK, XDMF, Tecplot, EnSight, OpenFOAM."""
