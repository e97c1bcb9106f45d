"""What is measured on a trained model: one function a measure, each with its own options, found by name.

The functions are in the modules of this package and are imported when they are asked for (`jepa.evaluate.subject`).
"""

MEASURES = {
    **{name: f"jepa.evaluate.landscapes:{name}" for name in ("area", "codes", "volume", "codimension")},
    "information": "jepa.evaluate.landscapes:information",
    **{name: f"jepa.evaluate.futures:{name}" for name in ("collapse", "factors", "branches", "predictions")},
    **{name: f"jepa.evaluate.futures:{name}" for name in ("context", "invariance")},
    "pixels": "jepa.evaluate.pixels:pixels",
    **{name: f"jepa.evaluate.latents:{name}" for name in ("modes", "latents", "entries", "wells")},
    "amortization": "jepa.evaluate.inference:amortization",
    **{name: f"jepa.evaluate.world_models:{name}" for name in ("code", "unrolling", "leaks")},
    **{name: f"jepa.evaluate.horizons:{name}" for name in ("contents", "horizons")},
    "routes": "jepa.evaluate.routes:routes",
    "training_cost": "jepa.evaluate.costs:training_cost",
    "hierarchical": "jepa.evaluate.hierarchical:hierarchical",
    "proposals": "jepa.evaluate.proposals:proposals",
    "reconfigured": "jepa.evaluate.reconfigured:reconfigured",
    "late": "jepa.evaluate.late:late",
    "planning": "jepa.evaluate.planning:planning",
    "known": "jepa.evaluate.known:known",
    **{name: f"jepa.evaluate.planners:{name}" for name in ("planners", "sampled")},
    **{name: f"jepa.evaluate.sparsity:{name}" for name in ("sparsity", "unrolled")},
}
