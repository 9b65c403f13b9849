// Where moments stand on a timeline. Times in which no process executed the run are drawn as narrow gaps.

const GAP = 16;

export class Axis {
  // `pieces` are what is drawn, from and to in seconds since 1970; `part` is what is wanted of them, or null for all.
  constructor(pieces, part, wide) {
    const cut = part === null ? pieces : pieces.map(([from, to]) => [Math.max(from, part[0]), Math.min(to, part[1])]).filter(([from, to]) => to > from);
    this.pieces = cut.length ? cut : pieces;
    this.wide = wide;
    this.gap = Math.min(GAP, wide / (3 * this.pieces.length));
    const all = this.pieces.reduce((sum, [from, to]) => sum + to - from, 0);
    this.scale = (wide - this.gap * (this.pieces.length - 1)) / Math.max(all, 1e-9);
    let left = 0;
    this.lefts = this.pieces.map(([from, to]) => {
      const its = left;
      left += (to - from) * this.scale + this.gap;
      return its;
    });
  }

  get start() { return this.pieces[0][0]; }
  get end() { return this.pieces[this.pieces.length - 1][1]; }

  x(time) {
    for (let i = 0; i < this.pieces.length; i += 1) {
      const [from, to] = this.pieces[i];
      if (time < from) return Math.max(0, this.lefts[i] - this.gap / 2);
      if (time <= to) return this.lefts[i] + (time - from) * this.scale;
    }
    return this.wide;
  }

  time(x) {
    for (let i = 0; i < this.pieces.length; i += 1) {
      const [from, to] = this.pieces[i];
      const right = this.lefts[i] + (to - from) * this.scale;
      if (x <= right) return Math.max(from, from + (x - this.lefts[i]) / this.scale);
    }
    return this.end;
  }

  // The gaps, from and to in pixels.
  gaps() {
    return this.lefts.slice(1).map((left) => [left - this.gap, left]);
  }
}
