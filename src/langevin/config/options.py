"""The options of a run beside the components that it is made of."""

TRUST = "trust"
"""The option that names whose code the configs of stored runs may name: packages, modules or classes."""
INIT, INIT_WEIGHTS = "init.checkpoint", "init.weights"
"""The options that name the run whose weights a run starts from, and what these weights are."""
RUN_OPTIONS = {
    "name": "str | None",
    "output_dir": "str",
    "resume": "bool",
    "accept_data": "bool",
    "seed": "Annotated[int, Ge(0)]",
    "batch_size": "Annotated[int, Ge(1)]",
    "compile": "bool",
    "overfit_samples": "Annotated[int, Ge(1)] | None",
    "optimized_metric": "str | None",
    INIT: "str | None",
    INIT_WEIGHTS: "str | None",
    TRUST: "list[str]",
}
"""A run's own options, beside the components it is made of."""
