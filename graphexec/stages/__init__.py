"""The stages of compilation, one a module, in the order graphexec.pipeline runs them.

A stage is a function from frozen data to frozen data. It imports data modules only, never
another stage.
"""
