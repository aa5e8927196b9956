// The embed page: the player alone, to be framed by other sites.
//
// The path names the stream; ?muted=1, ?autoplay=0 and ?controls=0 are as the
// element has them. The page that frames it learns what happens by message,
// {weir: 'playing', detail: {…}} and so on, and may give a token the same way:
// frame.contentWindow.postMessage({weir: 'token', token}, 'https://node'). So no
// token is ever part of an address.

import { streamPath, streamProblem } from './address.js';
import { h } from './dom.js';
import './player.js';

const query = new URLSearchParams(location.search);
const on = (name, initially) => !['0', 'no', 'off', 'false'].includes(query.get(name) ?? (initially ? '1' : '0'));

const player = h('weir-player', { muted: on('muted', false), autoplay: on('autoplay', true) ? null : 'off' });
const stream = nameOf(location.pathname.slice('/embed/'.length));
document.title = `${stream} · weir`;
window.weir = player; // for tests and for the curious

for (const type of ['playing', 'stalled', 'moved', 'ended', 'error']) {
  // Who may frame the page is for its policy to say, and no secret is told.
  player.addEventListener(type, ({ detail }) => parent !== window && parent.postMessage({ weir: type, detail }, '*'));
}
addEventListener('message', ({ source, data }) => {
  if (source === parent && data?.weir === 'token' && typeof data.token === 'string') player.token = data.token;
});
document.addEventListener('keydown', (event) => player.key(event));

player.toggleAttribute('bare', !on('controls', true));
const problem = streamProblem(stream);
if (problem) document.body.append(h('p', { role: 'alert' }, `“${stream}” cannot be the name of a stream. ${problem}`));
else {
  player.setAttribute('src', `${location.origin}/whep/${streamPath(stream)}`);
  document.body.append(player);
}

function nameOf(encoded) {
  try {
    return decodeURIComponent(encoded);
  } catch {
    return encoded; // a stray "%": shown as it is, and refused as a name
  }
}
