"""OpenVINO graphs: cut to the wanted outputs, split at the log-mel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from birdkit.contract import LOG_MEL_NAME, LOG_MEL_NAMES, METADATA_KEY, Contract
from birdkit.engines import wheels
from birdkit.errors import UserError


def with_outputs(model: Any, names: Sequence[str]) -> Any:
    """The graph with no other outputs than these; what only the others need is not computed."""
    wanted = [r for r in model.get_results() if r.output(0).get_names().intersection(names)]
    if len(wanted) == len(model.get_results()):
        return model
    return wheels.obtain("openvino").Model(wanted, model.get_parameters(), model.get_friendly_name())


def split(model: Any) -> tuple[Any, Any]:
    """Cut an OpenVINO graph at the log-mel, into the front end and the networks.

    Raises
    ------
    UserError
        Where the graph names no log-mel.
    """
    openvino = wheels.obtain("openvino")
    model = model.clone()
    every = (output for op in model.get_ordered_ops() for output in op.outputs())
    log_mel = next((output for output in every if output.get_names().intersection(LOG_MEL_NAMES)), None)
    if log_mel is None:
        raise UserError(
            f"{model.get_friendly_name()}: its graph names no '{LOG_MEL_NAME}', so the front end "
            "can't be kept in f32; export it again, or run it in f32"
        )
    inlet = openvino.opset13.parameter(log_mel.get_partial_shape(), np.float32, name=LOG_MEL_NAME)
    for target in log_mel.get_target_inputs():
        target.replace_source_output(inlet.output(0))
    front_end = openvino.Model([log_mel], model.get_parameters(), "front_end")
    networks = openvino.Model(model.get_results(), [inlet], "networks")
    # Cloned, since both parts would still be tied together by the constants that they share.
    return front_end.clone(), networks.clone()


def contract_of(model: Any, where: str) -> Contract:
    """The contract in an OpenVINO graph's metadata. `where` names the file in errors.

    Raises
    ------
    ContractError
        Where there is none, or one of another version.
    """
    path = ["framework", METADATA_KEY]
    metadata = {METADATA_KEY: str(model.get_rt_info(path).value)} if model.has_rt_info(path) else {}
    return Contract.from_metadata(metadata, where)
