"""AttentionShift's steps 2 to 9 the long way: float64, one pixel, patch and prototype at a time."""

import math

import numpy as np
import torch


def unfolded(rows, attention, depth):
    """Step 2 with whole matrices."""
    size = len(attention[0])
    product, found = None, []
    for k in range(depth):
        block = attention[len(attention) - 1 - k]
        mean = [[(block[i][j] + (i == j)) / 2 for j in range(size)] for i in range(size)]
        product = mean if product is None else matmul(product, mean)
        found.append([product[row] for row in rows])
    return np.array(found)


def matmul(a, b):
    return [[sum(x * b[k][j] for k, x in enumerate(row)) for j in range(len(b[0]))] for row in a]


def normalised(image):
    low, high = image.min(), image.max()
    return (image - low) / (high - low) if high > low else np.zeros_like(image)


def by_max(image):
    return image / image.max() if image.max() > 0 else np.zeros_like(image)


def enlarged(image, patch):
    """Bilinear by `patch`, corners not aligned."""
    height, width = image.shape
    found = np.zeros((height * patch, width * patch))
    for i in range(found.shape[0]):
        for j in range(found.shape[1]):
            y = min(max((i + 0.5) / patch - 0.5, 0), height - 1)
            x = min(max((j + 0.5) / patch - 0.5, 0), width - 1)
            top, left = int(y), int(x)
            for row, vertical in ((top, 1 - (y - top)), (min(top + 1, height - 1), y - top)):
                for column, across in ((left, 1 - (x - left)), (min(left + 1, width - 1), x - left)):
                    found[i, j] += vertical * across * image[row, column]
    return found


def worn(mask, side):
    """Erosion by a square; pixels beyond the border do not erode."""
    height, width = mask.shape
    reach = side // 2
    found = np.zeros_like(mask)
    for i in range(height):
        for j in range(width):
            rows = range(max(i - reach, 0), min(i + reach + 1, height))
            columns = range(max(j - reach, 0), min(j + reach + 1, width))
            found[i, j] = all(mask[r, c] for r in rows for c in columns)
    return found


def components(mask):
    """8-connected components as lists of pixels, by flood fill."""
    waiting = {(int(i), int(j)) for i, j in zip(*np.nonzero(mask), strict=True)}
    found = []
    while waiting:
        front, group = [waiting.pop()], []
        while front:
            i, j = front.pop()
            group.append((i, j))
            near = {(i + a, j + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} & waiting
            waiting -= near
            front += near
        found.append(group)
    return found


def box_of(image, point, *, patch, mode, threshold=0.2, keep=0.5):
    """Step 3 for one map."""
    height, width = image.shape
    if image.max() == image.min():
        left, top = int(point[0]) // patch * patch, int(point[1]) // patch * patch
        box = [left, top, min(left + patch, width) - 1, min(top + patch, height) - 1]
    else:
        groups = components(normalised(image) >= threshold)
        largest = max(map(len, groups))
        pixels = [pixel for group in groups if len(group) >= keep * largest for pixel in group]
        box = [
            min(j for _, j in pixels),
            min(i for i, _ in pixels),
            max(j for _, j in pixels),
            max(i for i, _ in pixels),
        ]
    if mode == "min_max":
        return [float(value) for value in box]
    found = [0.0] * 4
    for axis, length in ((0, width), (1, height)):
        centre, low, high = point[axis], box[axis], box[axis + 2]
        far = low if abs(centre - low) >= abs(high - centre) else high
        mirror = 2 * centre - far
        found[axis] = max(min(far, mirror), 0)
        found[axis + 2] = min(max(far, mirror), length)
    return found


def mil(class_logits, box_logits, labels):
    """Step 4: loss and choices."""
    count, depth, classes = class_logits.shape
    total, chosen = 0.0, []
    for i in range(count):
        scores = np.zeros((depth, classes))
        for k in range(depth):
            for c in range(classes):
                over_classes = math.exp(class_logits[i, k, c]) / sum(math.exp(v) for v in class_logits[i, k])
                over_boxes = math.exp(box_logits[i, k, c]) / sum(math.exp(v) for v in box_logits[i, :, c])
                scores[k, c] = over_classes * over_boxes
        for c in range(classes):
            bag = min(max(scores[:, c].sum(), 1e-6), 1 - 1e-6)
            total -= math.log(bag if c == labels[i] else 1 - bag)
        chosen.append(max(range(depth), key=lambda k: scores[k, labels[i]]))
    return total / count / classes, chosen


def cosine(a, b):
    lengths = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths > 0 else 0.0


def covered(box, size, patch):
    """Patches ⌊box / patch⌋, inclusive, as (row, column)."""
    x0, y0, x1, y1 = (math.floor(value / patch) for value in box)
    return [(i, j) for i in range(size[0]) for j in range(size[1]) if y0 <= i <= y1 and x0 <= j <= x1]


def instance_maps(features, attention, boxes, points, *, patch, generator):
    """Step 5; draws from the generator in the order instances, their backgrounds, shared background."""
    channels, height, width = features.shape
    maps = [normalised(image) for image in attention]

    def pick(pixels, count=20):
        return [pixels[k] for k in torch.randint(len(pixels), (count,), generator=generator).tolist()]

    def below(image):
        threshold = 0.1
        while (image < threshold).sum() < 20:
            threshold *= 2
        return [pixel for pixel in np.ndindex(image.shape) if image[pixel] < threshold]

    def mean(pixels):
        total = np.zeros(channels)
        for i, j in pixels:
            total += features[:, i // patch, j // patch]
        return total / len(pixels)

    prototypes = []
    for image, (x, y) in zip(maps, points, strict=True):
        above = [pixel for pixel in np.ndindex(image.shape) if image[pixel] >= 0.2]
        filler = [(int(y), int(x))] * max(20 - len(above), 0)
        prototypes.append(mean(above + filler if filler else pick(above)))
    backgrounds = [mean(pick(below(image))) for image in maps]
    shared = mean(pick(below(np.mean(maps, axis=0))))

    def refined(prototype, box):
        inside = covered(box, (height, width), patch) if box is not None else list(np.ndindex(height, width))
        similar = np.array([[cosine(prototype, features[:, i, j]) for j in range(width)] for i in range(height)])
        for _ in range(2):
            weight = np.where(similar >= 0.9 * similar.max(), similar, 0)
            if weight.sum() > 0:
                prototype = sum(weight[i, j] * features[:, i, j] for i, j in np.ndindex(height, width)) / weight.sum()
            similar = np.zeros((height, width))
            for i, j in inside:
                similar[i, j] = cosine(prototype, features[:, i, j])
        return similar

    competing = [refined(each, box) for each, box in zip(prototypes, boxes, strict=True)] + [refined(shared, None)]
    foreground, background = [], []
    for i, start in enumerate(backgrounds):
        won = np.zeros((height, width))
        for cell in np.ndindex(height, width):
            if all(competing[i][cell] > other[cell] for k, other in enumerate(competing) if k != i):
                won[cell] = competing[i][cell]
        behind = enlarged(refined(start, None), patch)
        front = by_max((1 - behind) * enlarged(won, patch))
        behind = by_max(behind)
        foreground.append(front)
        background.append(by_max(behind + 1 - (front + behind) / 2))
    return np.array(foreground), np.array(background)


def raw_points(foreground, background, box, *, side, generator, count=10):
    """Step 6 for one instance: positives, negatives."""
    height, width = foreground.shape
    rows = range(int(box[1]), min(int(box[3]), height - 1) + 1)
    columns = range(int(box[0]), min(int(box[2]), width - 1) + 1)
    inside = np.array([[foreground[i, j] for j in columns] for i in rows])
    outside = np.array([[background[i, j] for j in columns] for i in rows])
    positive = worn(inside > 0.35 * inside.max(), side)
    negative = outside > 0.8 * outside.max()
    pixels = [(i, j, 1) for i, j in np.ndindex(inside.shape) if positive[i, j]]
    pixels += [(i, j, 0) for i, j in np.ndindex(inside.shape) if negative[i, j]]
    if not pixels:
        return [], []
    order = torch.randperm(len(pixels), generator=generator).tolist()[:count]
    drawn = [pixels[order[k % len(order)]] for k in range(count)]
    points = [([j + columns[0] + 0.5, i + rows[0] + 0.5], sign) for i, j, sign in drawn]
    return [point for point, sign in points if sign], [point for point, sign in points if not sign]


def core(foreground, size, *, side):
    """Step 7's E: erosion, then bilinear at the patches' centres."""
    kept = worn(foreground > 0.35, side).astype(float)
    found = np.zeros(size)
    for i, j in np.ndindex(size):
        y, x = (i + 0.5) * kept.shape[0] / size[0] - 0.5, (j + 0.5) * kept.shape[1] / size[1] - 0.5
        top, left = int(y), int(x)
        for a, vertical in ((0, 1 - (y - top)), (1, y - top)):
            for b, across in ((0, 1 - (x - left)), (1, x - left)):
                if vertical * across > 0:
                    found[i, j] += vertical * across * kept[top + a, left + b]
    return found


def seeds(inside, box, *, patch, count=20):
    width = inside.shape[1]
    cells = [i * width + j for i, j in np.ndindex(inside.shape) if inside[i, j] > 0.35]
    if not cells:
        cells = [int((box[1] + box[3]) / 2) // patch * width + int((box[0] + box[2]) / 2) // patch]
    if len(cells) < count:
        return [cells[k % len(cells)] for k in range(count)]
    return [cells[k * math.floor(len(cells) / count)] for k in range(count)]


def shifted(features, inside, box, *, patch, rounds, exclude=False):
    """Step 7 for one instance: (20, C)."""
    channels, height, width = features.shape
    within = {i * width + j for i, j in covered(box, (height, width), patch)}
    flat = features.reshape(channels, -1).T
    prototypes = [flat[k].copy() for k in seeds(inside, box, patch=patch)]
    cells = [k for k in range(height * width) if k in within or not exclude]
    seen = {k: flat[k] if k in within else np.zeros(channels) for k in cells}
    tau = [0.1] * len(prototypes)
    for _ in range(rounds):
        weights = []
        for prototype, spread in zip(prototypes, tau, strict=True):
            logits = [cosine(prototype, seen[k]) / (0.1 * spread) for k in cells]
            high = max(logits)
            total = sum(math.exp(v - high) for v in logits)
            weights.append([math.exp(v - high) / total for v in logits])
        owner = [max(range(len(prototypes)), key=lambda p: weights[p][n]) for n in range(len(cells))]
        for p in range(len(prototypes)):
            own = [n for n in range(len(cells)) if owner[n] == p]
            prototypes[p] = sum((weights[p][n] * seen[cells[n]] for n in own), np.zeros(channels))
            near = [cosine(prototypes[p], seen[cells[n]]) for n in own]
            tau[p] = max(1 - sum(near) / len(near), 1e-10) if near else 1.0
    return np.array(prototypes)


def clustered(features, inside, box, *, patch, rounds=10):
    """Table 1's K-Means for one instance: (20, C)."""
    channels, height, width = features.shape
    flat = [row / math.sqrt(sum(x * x for x in row)) for row in features.reshape(channels, -1).T]
    within = [i * width + j for i, j in covered(box, (height, width), patch)]
    centres = [flat[k] for k in seeds(inside, box, patch=patch)]
    for _ in range(rounds):
        owner = {k: max(range(len(centres)), key=lambda p: cosine(centres[p], flat[k])) for k in within}
        for p in range(len(centres)):
            own = [flat[k] for k in within if owner[k] == p]
            if own:
                centres[p] = sum(own) / len(own)
    return np.array(centres)


def parts(features, prototypes, inside, box, *, patch, most=6):
    """Step 8 for one instance: prototypes, key-points inside the box."""
    channels, height, width = features.shape
    flat = features.reshape(channels, -1).T
    kept = []
    for prototype in prototypes:
        cells = [k for k in range(height * width) if max(cosine(prototype, flat[k]), 0) > 0.8]
        if cells and sum(inside[k // width, k % width] for k in cells) / len(cells) >= 0.85:
            kept.append(prototype)
    merged, gone = [], set()
    for p in range(len(kept)):
        if p not in gone:
            group = [q for q in range(p, len(kept)) if q == p or cosine(kept[p], kept[q]) >= 0.85]
            merged.append(sum(kept[q] for q in group) / len(group))
            gone |= set(group)
    maps = [[max(cosine(prototype, flat[k]), 0) for k in range(height * width)] for prototype in merged]
    order = sorted(range(len(merged)), key=lambda p: -sum(value > 0.9 for value in maps[p]))[:most]
    points = []
    for p in order:
        peaks = [k for k, value in enumerate(maps[p]) if value >= max(maps[p]) - 1e-9]
        x = sum((k % width + 0.5) * patch for k in peaks) / len(peaks)
        y = sum((k // width + 0.5) * patch for k in peaks) / len(peaks)
        if box[0] <= x <= box[2] and box[1] <= y <= box[3]:
            points.append([x, y])
    return [merged[p] for p in order], points
