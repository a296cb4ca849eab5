"""The neural term of a law: a pointwise network of one hidden layer of sines, affine in its output layer."""
