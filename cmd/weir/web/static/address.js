// Addresses of nodes and of streams.

// originOf is the origin of a URL, or '' if it is none.
export function originOf(url) {
  try {
    return new URL(url, document.baseURI).origin;
  } catch {
    return '';
  }
}

// streamPath writes a stream's name into a path, segment by segment.
export const streamPath = (name) => name.split('/').map(encodeURIComponent).join('/');

// streamProblem says what is wrong with a stream's name, or ''. The node
// checks again; this is to say it before a camera is asked for.
export function streamProblem(name) {
  if (!name) return 'Give the stream a name.';
  if (name.length > 128) return 'At most 128 characters.';
  if (!/^[A-Za-z0-9_.\-/]+$/.test(name)) return 'Letters, digits, “_”, “.”, “-”, and “/” between parts only.';
  const parts = name.split('/');
  if (parts.some((part) => part === '')) return 'A “/” must stand between two parts.';
  if (parts.some((part) => part === '.' || part === '..')) return '“.” and “..” cannot be parts of a name.';
  return '';
}
