"""The inner loops of selection at scale, compiled by numba and kept on disk. Import it inside functions only: numba takes half a second.

All arithmetic on similarities is on whole levels (similarity.py), so no result depends on the order of a sum.
"""

from __future__ import annotations

import numpy as np
from numba import njit

CHUNK = 16
BITS = (1 << np.arange(CHUNK)).astype(np.uint32)
PLACE = np.zeros(37, np.int64)  # of a single bit by its remainder mod 37, which is different for each
PLACE[BITS % 37] = np.arange(CHUNK)


@njit(cache=True, nogil=True)
def sift(block, over_a, over_b, sells_a, sells_b, mirrored, keys_1, levels_1, keys_2, levels_2):
    """The pairs of a block (a, b) that can still matter: those above the coverage of the covered row.

    over: (a,), (b,) coverage + 0.5 as float32; sells: which rows are candidates. Into keys_1, levels_1 go the pairs in which a row
    of b covers one of a (key: candidate << 16 | covered row), and, if `mirrored`, into keys_2, levels_2 those the other way round.
    -> how many of each.
    """
    found_1, found_2 = 0, 0
    rows, columns = block.shape
    for i in range(rows):
        over = over_a[i]
        line = block[i]
        for start in range(0, columns, CHUNK):
            hits = np.uint32(0)  # a bit for each column that is above one of the two
            if start + CHUNK <= columns:
                for j in range(CHUNK):  # of known length: the compiler makes vector instructions of it
                    hits |= BITS[j] if (line[start + j] >= over) | (line[start + j] >= over_b[start + j]) else np.uint32(0)
            else:
                for j in range(columns - start):
                    hits |= BITS[j] if (line[start + j] >= over) | (line[start + j] >= over_b[start + j]) else np.uint32(0)
            while hits:
                lowest = hits & (~hits + np.uint32(1))
                hits ^= lowest
                j = start + PLACE[lowest % np.uint32(37)]
                whole = np.int32(np.rint(line[j]))  # a half may be rounded down
                if whole > over and sells_b[j]:
                    keys_1[found_1] = np.uint32(j << 16 | i)
                    levels_1[found_1] = whole
                    found_1 += 1
                if mirrored and whole > over_b[j] and sells_a[i]:
                    keys_2[found_2] = np.uint32(i << 16 | j)
                    levels_2[found_2] = whole
                    found_2 += 1
    return found_1, found_2


@njit(cache=True, nogil=True)
def add_up(points, cell, sums):
    """Add each row to the sum of its cell, in the order of the rows. points (n, d), cell (n,), sums (cells, d)."""
    for row in range(len(points)):
        total = sums[cell[row]]
        for i in range(len(total)):
            total[i] += points[row, i]


@njit(cache=True, nogil=True)
def tally(keys, counts):
    """How many pairs each candidate of a block has. Adds to counts (block,)."""
    for key in keys:
        counts[key >> 16] += 1


@njit(cache=True, nogil=True)
def deal(keys, levels, first_row, cursor, rows, values):
    """Put pairs where their candidates' lists are; cursor (block,) moves on."""
    for at in range(len(keys)):
        candidate = keys[at] >> 16
        spot = cursor[candidate]
        cursor[candidate] = spot + 1
        rows[spot] = first_row + (keys[at] & 0xFFFF)
        values[spot] = levels[at]


@njit(cache=True, nogil=True)
def cover_by(block, turns, cover, owner, weights, won):
    """Raise the coverage of the rows of a block by its columns in turn; what each of them adds is added to won (b,).

    block (rows, b) levels not rounded yet; turns (b,): what owner says of the rows that a column represents best.
    """
    for i in range(block.shape[0]):
        best = cover[i]
        over = np.float32(best) + np.float32(0.5)
        for j in range(block.shape[1]):
            if block[i, j] >= over:
                whole = np.int32(np.rint(block[i, j]))
                if whole > best:
                    won[j] += np.int64(whole - best) * weights[i]
                    owner[i] = turns[j]
                    best = whole
                    over = np.float32(best) + np.float32(0.5)
        cover[i] = best


@njit(cache=True, nogil=True)
def gains_of(block, cover, weights, gains):
    """What each column of a block would add to the coverage of its rows. Adds to gains (b,). block (rows, b) levels not rounded yet."""
    for i in range(block.shape[0]):
        over = np.float32(cover[i]) + np.float32(0.5)
        for j in range(block.shape[1]):
            if block[i, j] >= over:
                gains[j] += (np.int64(np.rint(block[i, j])) - cover[i]) * weights[i]


@njit(cache=True, nogil=True)
def _above(gain_a, place_a, gain_b, place_b):
    return gain_a > gain_b or (gain_a == gain_b and place_a < place_b)


@njit(cache=True, nogil=True)
def _settle(heap, bounds, places, at, size):
    """Move the candidate at this node of the heap down to where it belongs."""
    item = heap[at]
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and _above(bounds[heap[child + 1]], places[heap[child + 1]], bounds[heap[child]], places[heap[child]]):
            child += 1
        if not _above(bounds[heap[child]], places[heap[child]], bounds[item], places[item]):
            break
        heap[at] = heap[child]
        at = child
    heap[at] = item


@njit(cache=True, nogil=True)
def heap_of(candidates, bounds, places):
    """Candidates as a heap: the highest bound on top, of equal ones the one with the lowest place."""
    heap = candidates.copy()
    for at in range(len(heap) // 2 - 1, -1, -1):
        _settle(heap, bounds, places, at, len(heap))
    return heap


@njit(cache=True, nogil=True)
def current_gain(candidate, starts, ends, rows, values, cover, weights):
    """The gain of a candidate now; pairs that cannot matter again leave its list, so the next look is shorter."""
    gain, keep = np.int64(0), starts[candidate]
    for at in range(starts[candidate], ends[candidate]):
        more = values[at] - cover[rows[at]]
        if more > 0:
            gain += np.int64(more) * weights[rows[at]]
            rows[keep], values[keep] = rows[at], values[at]
            keep += 1
    ends[candidate] = keep
    return gain


@njit(cache=True, nogil=True)
def current_gains(candidates, starts, ends, rows, values, cover, weights):
    """current_gain of each. -> (candidates,)."""
    gains = np.empty(len(candidates), np.int64)
    for at in range(len(candidates)):
        gains[at] = current_gain(candidates[at], starts, ends, rows, values, cover, weights)
    return gains


@njit(cache=True, nogil=True)
def greedy(candidates, bounds, places, starts, ends, rows, values, cover, owner, weights, turn, picks, won):
    """Lazy greedy on lists of pairs: fills picks (k,) and won (k,), raises cover, writes turn + 0, 1, ... into owner.

    bounds (n,): the gain of each candidate now; changes.
    """
    fresh = np.zeros(len(starts), np.int32)
    heap = heap_of(candidates, bounds, places)
    size = len(heap)
    for number in range(len(picks)):
        while fresh[heap[0]] != number:
            top = heap[0]
            fresh[top] = number
            bounds[top] = current_gain(top, starts, ends, rows, values, cover, weights)
            _settle(heap, bounds, places, 0, size)
        best = heap[0]
        size -= 1
        heap[0] = heap[size]
        _settle(heap, bounds, places, 0, size)
        picks[number], won[number] = best, bounds[best]
        for at in range(starts[best], ends[best]):
            if values[at] > cover[rows[at]]:
                cover[rows[at]] = values[at]
                owner[rows[at]] = turn + number
    return heap[:size]


@njit(cache=True, nogil=True)
def dense_greedy(levels, places, cover, weights, picks, won):
    """Lazy greedy on a whole table: levels (candidates, rows) int32. Fills picks (k,), numbers of candidates, and won (k,); raises cover (rows,)."""
    everyone = np.arange(len(levels))
    bounds, fresh = np.zeros(len(levels), np.int64), np.full(len(levels), -1, np.int32)
    for candidate in everyone:
        bounds[candidate] = _dense_gain(levels[candidate], cover, weights)
    heap = heap_of(everyone, bounds, places)
    size = len(heap)
    for number in range(len(picks)):
        while number > 0 and fresh[heap[0]] != number:
            top = heap[0]
            fresh[top] = number
            bounds[top] = _dense_gain(levels[top], cover, weights)
            _settle(heap, bounds, places, 0, size)
        best = heap[0]
        size -= 1
        heap[0] = heap[size]
        _settle(heap, bounds, places, 0, size)
        picks[number], won[number] = best, bounds[best]
        for row in range(len(cover)):
            cover[row] = max(cover[row], levels[best, row])


@njit(cache=True, nogil=True)
def _dense_gain(line, cover, weights):
    gain = np.int64(0)
    for row in range(len(line)):
        gain += np.int64(max(line[row] - cover[row], 0)) * weights[row]
    return gain


@njit(cache=True, nogil=True, inline="always")
def _level(squared, grain):
    return np.int64(np.rint(np.float64(max(squared, np.float32(0))) / grain))


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def fall_to(block, ends, lengths, grain, turns, levels, owner):
    """Let the distances of the rows of a block fall to that of the nearest of its columns, the first of equals.

    block (rows, c): -2 times inner products; ends (c,), lengths (rows,): squared lengths; grain: what a level is; turns (c,): what
    owner says of the rows whose nearest this column is. Changes levels and owner (rows,).
    """
    for i in range(len(block)):
        line = block[i]
        least = line[0] + ends[0]
        for j in range(len(line)):  # no place is kept, so the compiler makes vector instructions of it
            squared = line[j] + ends[j]
            least = squared if squared < least else least
        level = _level(lengths[i] + least, grain)
        if level < levels[i]:
            j = 0
            while j + 1 < len(line) and line[j] + ends[j] != least:
                j += 1
            levels[i], owner[i] = level, turns[j]


@njit(cache=True, nogil=True)
def farthest(inner, lengths, grain, levels, places, behind, picks, won):
    """Farthest first among a few rows, while the farthest of all is surely one of them: above the key `behind` of any other.

    inner (m, m), lengths (m,): inner products and squared lengths; grain: what a level is; levels (m,): of the squared distances to
    the nearest chosen row; places (m,): the lower wins among equals. Fills picks with places and won with levels. -> how many.
    """
    levels, rows = levels.copy(), len(levels)
    for number in range(len(picks)):
        best = 0
        for row in range(1, rows):
            if levels[row] > levels[best] or (levels[row] == levels[best] and places[row] < places[best]):
                best = row
        if (levels[best] << 32) - places[best] <= behind:
            return number
        picks[number], won[number] = places[best], levels[best]
        for row in range(rows):
            levels[row] = min(levels[row], _level(lengths[row] + (lengths[best] - np.float32(2) * inner[best, row]), grain))
        levels[best] = -1
    return len(picks)


@njit(cache=True, nogil=True)
def cover_by_lists(chosen, starts, ends, rows, values, cover, owner):
    """Raise the coverage by the lists of rows that are chosen already; owner becomes -1 there."""
    for row in chosen:
        for at in range(starts[row], ends[row]):
            if values[at] > cover[rows[at]]:
                cover[rows[at]] = values[at]
                owner[rows[at]] = -1


@njit(cache=True, nogil=True, fastmath=True)
def inner_products(points, candidates, starts, ends, rows, inner):
    """Of each candidate with the rows of its list, into their places in inner; four at a time, which reads the candidate once for four."""
    for candidate in candidates:
        mine = points[candidate]
        at, end = starts[candidate], ends[candidate]
        while at + 4 <= end:
            a, b, c, d = points[rows[at]], points[rows[at + 1]], points[rows[at + 2]], points[rows[at + 3]]
            to_a = to_b = to_c = to_d = np.float32(0)
            for i in range(len(mine)):
                to_a += mine[i] * a[i]
                to_b += mine[i] * b[i]
                to_c += mine[i] * c[i]
                to_d += mine[i] * d[i]
            inner[at], inner[at + 1], inner[at + 2], inner[at + 3] = to_a, to_b, to_c, to_d
            at += 4
        for last in range(at, end):
            other, total = points[rows[last]], np.float32(0)
            for i in range(len(mine)):
                total += mine[i] * other[i]
            inner[last] = total


@njit(cache=True, nogil=True)
def held(above, place, starts, ends, rows):
    """The part of `above` (looked-at rows, n) that lists hold, summed. place (n,): of each row among those looked at, -1 elsewhere."""
    total = np.int64(0)
    for candidate in range(len(starts)):
        for at in range(starts[candidate], ends[candidate]):
            if place[rows[at]] >= 0:
                total += above[place[rows[at]], candidate]
    return total
