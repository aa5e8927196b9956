// Numbers and names as people read them.

const units = ['bit/s', 'kbit/s', 'Mbit/s', 'Gbit/s', 'Tbit/s'];

// scale returns the power of 1,000 that suits n.
function scale(n) {
  let power = 0;
  while (n >= 999.5 && power < units.length - 1) {
    n /= 1000;
    power++;
  }
  return power;
}

const short = (n) => (n >= 99.5 || Number.isInteger(n) ? n.toFixed(0) : n.toFixed(1));

// bits writes a rate given in bit/s, with a space that does not break.
export function bits(n) {
  if (!Number.isFinite(n)) return '–';
  const power = scale(Math.abs(n));
  return `${short(n / 1000 ** power)}\u00a0${units[power]}`;
}

// bitsOf writes "182 / 500 Mbit/s", or "1.2 Mbit/s of 1 Gbit/s" where the two
// are too far apart for one unit.
export function bitsOf(used, limit) {
  if (!limit) return bits(used);
  const power = scale(limit);
  const inUnit = used / 1000 ** power;
  return inUnit === 0 || inUnit >= 0.1 ? `${short(inUnit)} / ${bits(limit)}` : `${bits(used)} of ${bits(limit)}`;
}

export const count = (n) => n.toLocaleString('en');

export const countOf = (used, limit) => (limit ? `${count(used)} / ${count(limit)}` : count(used));

export const percent = (share) => (Number.isFinite(share) ? `${Math.round(share * 100)} %` : '–');

// ms writes a duration in milliseconds.
export function ms(n) {
  if (!Number.isFinite(n)) return '–';
  if (n < 9.95) return `${n.toFixed(1)} ms`;
  if (n < 999.5) return `${Math.round(n)} ms`;
  return seconds(n / 1000);
}

export function seconds(n) {
  if (!Number.isFinite(n)) return '–';
  if (n < 99.95) return `${n.toFixed(1)} s`;
  if (n < 3600) return `${Math.floor(n / 60)} min ${Math.floor(n % 60)} s`;
  return `${Math.floor(n / 3600)} h ${Math.floor((n % 3600) / 60)} min`;
}

// clock writes a running time: 0:07, 12:40, 1:02:03.
export function clock(n) {
  const two = (v) => String(v).padStart(2, '0');
  const all = Math.max(0, Math.floor(n));
  const [hours, minutes] = [Math.floor(all / 3600), Math.floor(all / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(all % 60)}` : `${minutes}:${two(all % 60)}`;
}

// peer shortens a peer ID to the part that differs between nodes: every
// ed25519 ID starts with 12D3KooW. The joiner keeps a line from ending in "…".
const joiner = '\u2060';
export const peer = (id) => (id && id.length > 14 ? `${id.slice(0, 4)}…${joiner}${id.slice(-6)}` : id || 'unknown');

// tail is shorter still, for lists.
export const tail = (id) => (id && id.length > 14 ? `…${joiner}${id.slice(-6)}` : id || 'unknown');

// plural: "1 node", "12 nodes".
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

// list: "a", "a and b", "a, b and c".
export function list(words) {
  return words.length < 2 ? words.join('') : `${words.slice(0, -1).join(', ')} and ${words.at(-1)}`;
}
