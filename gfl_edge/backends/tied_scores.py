"""TopK for OpenVINO in the order that ONNX demands: equal values by the lower index.

OpenVINO's own leaves that order, and which of the values that equal the last one enter, to chance. Its stable one takes
a thousand times as long: 1.2 seconds for the best 1000 of 287,840 scores. Where no values are equal, which it looks for
first, the one here costs nothing that can be measured, and about half a millisecond where some are.
"""

from __future__ import annotations

from typing import Any

from gfl_edge import optional
from gfl_edge.ops.onnx_graph import copy_model
from gfl_edge.ops.onnx_limits import NMS_OP

DOMAIN, NAME = "gfl_edge", "OrderedTopK"

# For values [N, n]. TopK finds which values are the best, and, of those above the last one, the places. Of what equals
# the last one, the lowest places come from a TopK of places. Then all are sorted by place, and last by the run of equal
# values that they are in: its number and the rank of the place make keys of which no two are equal: any sort will do.
_BODY = """
<domain: "{domain}", opset_import: ["" : {opset}]>
{name} (x, k) => (values, places)
{{
  axis = Constant <value_ints: ints = [1]> ()
  start = Constant <value_ints: ints = [0]> ()
  one = Constant <value_ints: ints = [1]> ()
  zero_scalar = Constant <value_int: int = 0> ()
  one_scalar = Constant <value_int: int = 1> ()
  zero = Constant <value_float: float = 0.0> ()
  length = Shape <start: int = 1, end: int = 2> (x)
  one_more = Add (k, one)
  looked_at = Min (one_more, length)
  but_last = Sub (looked_at, one)
  best, best_places = TopK <axis: int = 1, largest: int = 1, sorted: int = 1> (x, looked_at)
  values = Slice (best, start, k, axis)
  unordered = Slice (best_places, start, k, axis)
  each = Slice (best, start, but_last, axis)
  next = Slice (best, one, looked_at, axis)
  same = Equal (each, next)
  counts = Greater (each, zero)
  tied = And (same, counts)
  tied_int = Cast <to: int = 6> (tied)
  ties = ReduceSum <keepdims: int = 0> (tied_int)
  any_ties = Cast <to: int = 9> (ties)
  places = If (any_ties) <
    then_branch = order () => (int64[N, K] ordered) {{
      last_column = Sub (k, one)
      last = Slice (values, last_column, k, axis)
      is_last = Equal (x, last)
      length_scalar = Squeeze (length)
      all_places = Range (zero_scalar, length_scalar, one_scalar)
      place_numbers = Cast <to: int = 6> (all_places)
      beyond = Cast <to: int = 6> (length_scalar)
      shifted = Add (place_numbers, beyond)
      keys = Where (is_last, place_numbers, shifted)
      key_values, last_places = TopK <axis: int = 1, largest: int = 0, sorted: int = 1> (keys, k)
      is_above = Greater (values, last)
      above_int = Cast <to: int = 7> (is_above)
      num_above = ReduceSum <keepdims: int = 1> (above_int, axis)
      k_scalar = Squeeze (k)
      rank = Range (zero_scalar, k_scalar, one_scalar)
      since = Sub (rank, num_above)
      of_last = Max (since, zero_scalar)
      lowest = GatherElements <axis: int = 1> (last_places, of_last)
      chosen = Where (is_above, unordered, lowest)
      chosen_int = Cast <to: int = 6> (chosen)
      rising_int, by_place = TopK <axis: int = 1, largest: int = 0, sorted: int = 1> (chosen_int, k)
      rising = Cast <to: int = 7> (rising_int)
      before = Slice (values, start, last_column, axis)
      after = Slice (values, one, k, axis)
      falls = Greater (before, after)
      falls_int = Cast <to: int = 6> (falls)
      falls_so_far = CumSum (falls_int, one_scalar)
      first = Slice (values, start, one, axis)
      first_int = Cast <to: int = 6> (first)
      no_falls = Sub (first_int, first_int)
      runs = Concat <axis: int = 1> (no_falls, falls_so_far)
      run = GatherElements <axis: int = 1> (runs, by_place)
      k_int = Cast <to: int = 6> (k_scalar)
      run_start = Mul (run, k_int)
      rank_int = Cast <to: int = 6> (rank)
      unique = Add (run_start, rank_int)
      unique_values, by_run = TopK <axis: int = 1, largest: int = 0, sorted: int = 1> (unique, k)
      ordered = GatherElements <axis: int = 1> (rising, by_run)
    }},
    else_branch = keep () => (int64[N, K] kept) {{ kept = Identity (unordered) }}
  >
}}
"""


def with_ordered_topk(model: Any) -> Any:
    """A copy of ``model`` (``onnx.ModelProto``) in which every TopK of its NMS orders equal scores as ONNX says."""
    helper, copy = optional.load("onnx.helper"), copy_model(model)
    for function in [function for function in copy.functions if function.name == NMS_OP]:
        for node in [node for node in function.node if node.op_type == "TopK"]:
            if all(helper.get_attribute_value(attribute) == 1 for attribute in node.attribute):  # axis, largest, sorted
                node.domain, node.op_type = DOMAIN, NAME
                del node.attribute[:]
        if all(own.domain != DOMAIN for own in function.opset_import):
            function.opset_import.append(helper.make_opsetid(DOMAIN, 1))
        opset = next(own.version for own in function.opset_import if own.domain == "")
        body = _BODY.format(domain=DOMAIN, name=NAME, opset=opset)
        copy.functions.append(optional.load("onnx.parser").parse_function(body))
    return copy
