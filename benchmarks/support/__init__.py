"""The tools that several suites measure with: worker processes, bare scripts, a sampler."""
