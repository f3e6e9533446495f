"""Which families of models are there? One file each; `registry` names them, `contract` says what an
arm is."""
