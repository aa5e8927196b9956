// Figures of a session as a page shows them.

import { attr, h, s, text } from './dom.js';

// board shows named figures. set({name: value}) fills them in.
export function board(label, names) {
  const values = new Map();
  const el = h('dl', { class: 'board', 'aria-label': label },
    names.map(([key, name, hint]) => {
      const value = h('dd', { 'data-stat': key }, '–');
      values.set(key, value);
      return h('div', {}, h('dt', { title: hint }, name), value);
    }));
  return {
    el,
    set(figures) {
      for (const [key, value] of values) text(value, figures[key] ?? '–');
    },
  };
}

// sparkline draws the last minute of one figure.
export function sparkline(label) {
  const POINTS = 120;
  const [width, height] = [240, 44];
  const area = s('path', { class: 'spark-area' });
  const line = s('path', { class: 'spark-line' });
  const el = s('svg', {
    class: 'spark', viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': label,
  }, area, line);
  const past = [];
  return {
    el,
    clear() {
      past.length = 0;
      attr(line, 'd', '');
      attr(area, 'd', '');
    },
    add(value) {
      past.push(Number.isFinite(value) ? Math.max(0, value) : 0);
      if (past.length > POINTS) past.shift();
      if (past.length < 2) return;
      const most = Math.max(...past, 1);
      const points = past.map((v, i) =>
        `${(width - ((past.length - 1 - i) * width) / (POINTS - 1)).toFixed(1)} ${(height - 2 - (v / most) * (height - 6)).toFixed(1)}`);
      attr(line, 'd', `M${points.join('L')}`);
      attr(area, 'd', `M${points[0].split(' ')[0]} ${height}L${points.join('L')}L${width} ${height}Z`);
    },
  };
}
