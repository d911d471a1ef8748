"""The time of a forward pass over a chunk of a prompt, fitted to the passes that were timed.

Pure policy: no thread, no clock, no tensor.

A pass takes as long as the device reads the weights, whatever the chunk; or, with more tokens, a
fixed time, a time for each token, and a time for each pair of a token and a token before it. These
costs are fitted by recursive least squares: a Kalman filter whose state may drift, mostly in all
costs at once, as when the machine gets slower. A pass that takes far longer than expected counts
for little, unless several in a row do, all about as far. About what a shape that comes for the
first time costs more must be known from elsewhere: nothing tells it from a fixed time while all
shapes are new.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from statistics import median

__all__ = ["ChunkCost", "Pass"]

DRIFT = 0.02  # relative change of all costs together that is expected from one pass to the next
WANDER = 0.003  # the same, of each cost by itself
MIN_NOISE = 0.02  # relative deviation of a pass's time that is always allowed for
DEVIATIONS = 25  # passes of whose deviations the median tells the usual one
# Times that median, the mean of the deviations; half as many again where a third are outliers.
MEAN_TO_MEDIAN = 1.18
OUTLIER = 3.0  # deviations after which a pass counts for less
# Times the expected, from which a pass was slowed by others and counts for hardly anything, unless
# the one before was an outlier too.
SLOWED = 2.0
ALIKE = 1.5  # times one outlier's deviation, up to which the next is alike
STREAK = 3  # consecutive outliers on one side, which show that the costs have changed
JOLT = 0.5  # relative uncertainty of all costs after such a streak
NEAR = 1.1  # times the least that a pass takes, up to which its tokens may have cost nothing
LOOSE = 0.1  # relative uncertainty of what such a pass says of its tokens
MAX_SHAPES = 1 << 14  # shapes that are remembered
# A pair of tokens costs some 1/30,000 of a token: attention needs a product of two vectors for it
# in each layer, a token one with each weight.
PAIRS_TO_TOKENS = 3e-5
# Relative uncertainty of that where passes are timed to find it: attention that no kernel fuses
# costs a hundred times as much.
PAIRS_DOUBT = 100.0

NEW_NOISE = 0.25  # relative deviation of what a new shape costs, from one to the next
NEW_DOUBT = 0.3  # relative uncertainty of what is known of it from elsewhere

LEAST, FIXED, TOKENS, PAIRS, NEW = COSTS = range(5)
# Units in which costs are kept, for numbers of similar size.
TOKEN_UNIT = 1e3
PAIR_UNIT = 1e6

Vector = list[float]
Pass = tuple[int, int, float]  # its tokens, the tokens before them, its seconds


class ChunkCost:
    """The costs of a forward pass over a chunk, in seconds."""

    def __init__(self) -> None:
        self.noise = MIN_NOISE  # usual deviation of a pass from the expected time, relative to it
        self.largest = 0  # tokens of the largest pass that was timed
        self._costs: Vector = []
        self._variance: list[Vector] = []  # covariance matrix of the costs
        self._contexts_timed = False  # whether a pass after other tokens was timed
        self._ratio = 1.0  # of the last outlier to the expected time
        self._deviations = deque([MIN_NOISE / MEAN_TO_MEDIAN] * DEVIATIONS, DEVIATIONS)
        self._streak = 0  # consecutive outliers; negative if they were too fast
        self._shapes: dict[int, dict[tuple[int, int], None]] = {}  # (tokens, rows) by context
        self._shape_count = 0
        self._drift = DRIFT  # relative change of all costs from one pass to the next

    @property
    def known(self) -> bool:
        """Whether any pass was timed."""
        return bool(self._costs)

    @property
    def least(self) -> float:
        """The seconds that a pass takes with the fewest tokens."""
        return self._costs[LEAST]

    @property
    def new_shape(self) -> float:
        """The seconds by which a pass of a shape that was never read takes longer."""
        return self._costs[NEW] if self._costs else 0.0

    @new_shape.setter
    def new_shape(self, seconds: float) -> None:
        for i in COSTS:
            self._variance[NEW][i] = self._variance[i][NEW] = 0.0
        self._costs[NEW] = seconds
        self._variance[NEW][NEW] = (NEW_DOUBT * seconds) ** 2

    def shapes(self, context: int) -> Mapping[tuple[int, int], None]:
        """Return the shapes `(tokens, rows)` of passes that were timed after `context` tokens."""
        return self._shapes.get(context, {})

    def seconds(self, tokens: float, context: int) -> float:
        """Return the expected time of a pass over `tokens` tokens, of a shape that was timed."""
        rate = self._token(context) + self._pair * tokens / 2
        return max(self._costs[LEAST], self._costs[FIXED] + tokens * rate)

    def depends_on(self, tokens: float, context: int) -> bool:
        """Return whether a pass of fewer tokens takes less time."""
        return self.seconds(tokens, context) > NEAR * self._costs[LEAST]

    def tokens_in(self, seconds: float, context: int) -> float:
        """Return the most tokens with which a pass takes `seconds`; 0 if none takes so little."""
        room = seconds - self._costs[FIXED]
        if room < 0 or seconds < self._costs[LEAST]:
            return 0.0
        rate = self._token(context)
        root = rate + math.sqrt(rate * rate + 2 * self._pair * room)
        return 2 * room / root if root else math.inf

    def tokens_at(self, per_token: float, overhead: float, context: int) -> float:
        """Return the fewest tokens with which a pass and `overhead` take `per_token` a token.

        Infinite if no number does.
        """
        fixed = overhead + self._costs[FIXED]
        room = per_token - self._token(context)
        square = room * room - 2 * self._pair * fixed
        if room <= 0 or square < 0:
            return math.inf
        line = 2 * fixed / (room + math.sqrt(square))
        return max(line, (overhead + self._costs[LEAST]) / per_token)

    def _token(self, context: int) -> float:
        return self._costs[TOKENS] / TOKEN_UNIT + context * self._pair

    @property
    def _pair(self) -> float:
        return self._costs[PAIRS] / PAIR_UNIT

    def learn(
        self,
        tokens: int,
        context: int,
        seconds: float,
        rows: int = 1,
        *,
        repeated: bool = False,
        sure: bool = False,
    ) -> bool:
        """Record a pass over `tokens` tokens in all, of `rows` prompts, after `context` tokens.

        `repeated` says that a pass of this shape was made that is not recorded, `sure` that the
        time can be no outlier. Returns whether it was one.
        """
        new = self._remember(tokens, context, rows) and not repeated and self.new_shape > 0
        pairs = tokens * (context + tokens / rows / 2)
        line = [0.0, 1.0, tokens / TOKEN_UNIT, pairs / PAIR_UNIT, float(new)]
        self.largest = max(self.largest, tokens)
        if not self._costs:
            self._begin(line[TOKENS], seconds)
        self._wander()
        self._fit(line, seconds, sure=sure)
        self._bound_fixed()
        self._contexts_timed |= context > 0
        if not self._contexts_timed:
            self._assume_pairs()
        return self._streak != 0

    def learn_pairs(self, passes: Sequence[Pass]) -> None:
        """Record passes after more and more tokens, each right after the last.

        Each is its tokens, those before them, and the seconds. A pair of tokens costs what is
        assumed, unless these passes clearly show that it costs more.
        """
        found = ChunkCost()
        found.__dict__.update(self.__dict__)
        found._costs, found._variance = [*self._costs], [[*row] for row in self._variance]
        found._variance[PAIRS][PAIRS] += (PAIRS_DOUBT * self._costs[PAIRS]) ** 2
        found._deviations = self._deviations.copy()
        found._contexts_timed, found._drift = True, DRIFT / 2  # as hardly any time goes by
        for tokens, context, seconds in passes:
            found.learn(tokens, context, seconds, repeated=True)
        deviation = math.sqrt(found._variance[PAIRS][PAIRS])
        if found._costs[PAIRS] - OUTLIER * deviation > self._costs[PAIRS]:
            self.__dict__.update(found.__dict__, _drift=DRIFT)
            return
        for tokens, context, seconds in passes:
            self.learn(tokens, context, seconds, repeated=True)

    def _remember(self, tokens: int, context: int, rows: int) -> bool:
        """Note a shape; return whether it is new."""
        if self._shape_count >= MAX_SHAPES:
            self._shapes.clear()
            self._shape_count = 0
        shapes = self._shapes.setdefault(context, {})
        new = (tokens, rows) not in shapes
        shapes[tokens, rows] = None
        self._shape_count += new
        return new

    def _begin(self, tokens: float, seconds: float) -> None:
        """Guess the costs from the first pass, which had few tokens."""
        rate = seconds / (tokens + 1 / TOKEN_UNIT)
        self._costs = [seconds, seconds, rate / 4, 0.0, 0.0]
        deviations = [seconds / 4, seconds, rate, 0.0, 0.0]
        self._variance = [[0.0] * len(COSTS) for _ in COSTS]
        for i, deviation in enumerate(deviations):
            self._variance[i][i] = deviation * deviation
        self._assume_pairs()

    def _assume_pairs(self) -> None:
        """Derive the cost of a pair from that of a token, while no context was read."""
        usual = self._costs[TOKENS] * PAIRS_TO_TOKENS * PAIR_UNIT / TOKEN_UNIT
        self._costs[PAIRS] = usual
        for i in COSTS:
            self._variance[PAIRS][i] = self._variance[i][PAIRS] = 0.0
        self._variance[PAIRS][PAIRS] = usual * usual

    def _fit(self, line: Vector, seconds: float, *, sure: bool) -> None:
        """Attribute a pass to its tokens, or to the least that a pass takes.

        The latter says of its tokens only that they take no longer.
        """
        new, near = line[NEW], NEAR * self._costs[LEAST]
        # What a new shape costs differs too much to tell the one from the other.
        if (_dot(line, self._costs) if new else seconds) - new * self._costs[NEW] > near:
            self._update(line, seconds, sure=sure)
            return
        self._update([1.0, 0.0, 0.0, 0.0, new], seconds, sure=sure)
        if not new and _dot(line, self._costs) > seconds:
            gains, total = self._gains(line, LOOSE * seconds)
            self._correct(gains, seconds - _dot(line, self._costs), total)

    def _bound_fixed(self) -> None:
        """Let the fixed part of a pass be no more than a pass takes with the fewest tokens."""
        above = self._costs[FIXED] - self._costs[LEAST]
        if above > 0:
            gains, total = self._gains([-1.0, 1.0, 0.0, 0.0, 0.0], MIN_NOISE * self._costs[LEAST])
            self._correct(gains, -above, total)

    def _wander(self) -> None:
        """Let the costs be a little less certain than after the last pass."""
        least, _, tokens, *_ = self._costs
        # A cost that was found to be nothing may still come to be something.
        floors = [0.0, least / 10, least / 10, tokens / 100, 0.0]
        self._loosen(self._drift)
        for i, (cost, floor) in enumerate(zip(self._costs, floors, strict=True)):
            self._variance[i][i] += (WANDER * max(cost, floor)) ** 2

    def _loosen(self, relative: float) -> None:
        """Add the uncertainty of a factor that is common to all costs."""
        for row, cost in zip(self._variance, self._costs, strict=True):
            for j, other in enumerate(self._costs):
                row[j] += relative * relative * cost * other

    def _update(self, features: Vector, seconds: float, *, sure: bool) -> None:
        expected = _dot(features, self._costs)
        error = seconds - expected
        new = features[NEW] * self._costs[NEW]
        noise = math.hypot(self.noise * (expected - new), NEW_NOISE * new)
        gains, total = self._gains(features, noise)
        if not sure and self._is_streak(error / math.sqrt(total), seconds / expected):
            self._loosen(JOLT)
            for i, cost in enumerate(self._costs):
                self._variance[i][i] += (JOLT * cost / 2) ** 2
            gains, total = self._gains(features, noise)
        if not sure:
            alone = seconds > SLOWED * expected and self._streak == 1
            total *= max(1.0, error / (OUTLIER * math.sqrt(total))) ** (2 if alone else 1)
        self._correct(gains, error, total)
        if not new:
            self._deviations.append(min(abs(error) / expected, OUTLIER * self.noise))
            self.noise = max(MIN_NOISE, MEAN_TO_MEDIAN * median(self._deviations))

    def _gains(self, features: Vector, noise: float) -> tuple[Vector, float]:
        """Return the covariances of the costs with a pass's time, and the variance of that time."""
        gains = [_dot(row, features) for row in self._variance]
        return gains, _dot(gains, features) + noise * noise

    def _is_streak(self, deviations: float, ratio: float) -> bool:
        """Count consecutive outliers that deviate alike; return whether there are enough."""
        if abs(deviations) <= OUTLIER:
            self._streak = 0
            return False
        side = 1 if deviations > 0 else -1
        alike = self._streak * side > 0 and 1 / ALIKE < ratio / self._ratio < ALIKE
        self._streak = self._streak + side if alike else side
        self._ratio = ratio
        return abs(self._streak) >= STREAK

    def _correct(self, gains: Vector, error: float, total: float) -> None:
        for i, row in enumerate(self._variance):
            self._costs[i] = max(0.0, self._costs[i] + gains[i] * error / total)
            for j, gain in enumerate(gains):
                row[j] -= gains[i] * gain / total


def _dot(a: Vector, b: Vector) -> float:
    return sum(map(float.__mul__, a, b))
