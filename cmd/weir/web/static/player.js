// <weir-player src token muted>: one stream of a weir network, received by WHEP,
// in any page. The console's player, the embed page and everybody's own pages use
// this element.
//
// Attributes: src, the stream's address (https://node/whep/NAME), with ?layer=RID
// for one layer of simulcast; token, a bearer
// token, sent to the node of src and to those of nodes, and to nobody else; nodes,
// base URLs of further nodes to ask when that of src is silent, besides those it
// names itself; muted; autoplay="off" to wait for a click.
//
// Events, with what they tell in detail: playing {node, firstFrame}; stalled
// {message}, when the picture stops; moved {from, to}, when another node serves;
// ended {message, status, code}, when what was played is over; error {message,
// status, code}, when a person or the page has to do something, such as to set
// another token; change, when state or words are others; and, every half second,
// sample, with figures.
//
// CSS: the parts frame, video, overlay, message, button, controls and latency, the
// states playing, waiting, failed and stopped, and --weir-accent, --weir-background,
// --weir-ink, --weir-font, --weir-radius, --weir-aspect-ratio and --weir-fit.

import { originOf, streamPath } from './address.js';
import { Connection, stereo } from './connection.js';
import { attr, children, h, icon, text } from './dom.js';
import { ms } from './format.js';
import { Meter } from './meter.js';

const SAMPLE = 500; // ms between samples of the figures
const STALL = 8000; // ms without a byte after which the session is given up
const SOUND_ONLY = 3000; // ms that a stream may send sound before it is taken to have no picture
const NODES = 30000; // ms between questions for other nodes
const NODES_KEPT = 8;
const IDLE = 2500; // ms without a move of the pointer until the controls fade

// What a node's refusals are called, by their code.
const titles = {
  'no-capacity': 'No room now',
  'origin-unreachable': 'The stream’s origin cannot be reached',
  orphaned: 'The stream has lost its origin',
  'helper-unreachable': 'The node with room cannot be reached',
  'not-known': 'Not known yet',
  'too-many-setups': 'The node is busy',
  'too-many-waiting': 'The node is busy',
  'no-common-codec': 'This browser cannot play it',
  unauthorized: 'A token is needed',
  forbidden: 'The token is for something else',
  'too-many-sessions': 'The token is in use',
  'rights-unknown': 'Rights cannot be checked now',
  timeout: 'It took too long',
  closing: 'The node is ending',
  draining: 'The node is ending',
};

// headline puts a problem into a few words. played says whether the stream was
// shown before.
function headline({ code, status }, played) {
  if (titles[code]) return titles[code];
  if (status === 409) return played ? 'No longer live' : 'Not live yet';
  if (status === 404) return 'No such stream';
  if (status === 503) return 'No room now';
  if (status === 401) return 'A token is needed';
  if (status >= 400) return `Refused (${status})`;
  if (status) return 'Not a stream';
  return played ? 'Interrupted' : 'Not connected';
}

const style = `
:host { display: block; position: relative; aspect-ratio: var(--weir-aspect-ratio, 16 / 9); min-width: 0; }
:host([hidden]) { display: none; }
:host(:fullscreen) { aspect-ratio: auto; width: 100%; height: 100%; }
*, *::before, *::after { box-sizing: border-box; }
[hidden] { display: none !important; }
.frame {
  --accent: var(--weir-accent, #7fd9cf); --ground: var(--weir-background, #060b0b); --ink: var(--weir-ink, #ffffff);
  position: absolute; inset: 0; display: grid; overflow: hidden; border-radius: var(--weir-radius, 0); background: var(--ground); color: var(--ink);
  font: 400 15px/1.45 var(--weir-font, ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "Liberation Sans", Arial, sans-serif);
  text-align: start; container-type: inline-size; -webkit-tap-highlight-color: transparent;
}
:host(:fullscreen) .frame { border-radius: 0; }
.frame[data-idle] { cursor: none; }
:focus { outline: none; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; border-radius: 6px; }
.frame:focus-visible { outline-offset: -3px; border-radius: var(--weir-radius, 0); }
video, .still { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: var(--weir-fit, contain); display: block; }
video:not([data-shown]) { visibility: hidden; }
.overlay { position: absolute; inset: 0; display: grid; place-content: safe center; justify-items: center; gap: 16px; padding: 20px 20px 60px; overflow: auto; background: rgb(6 11 11 / 82%); color: #fff; text-align: center; }
.still:not([hidden]) + .overlay { background: rgb(6 11 11 / 62%); }
.overlay p { display: grid; gap: 5px; margin: 0; max-width: 52ch; overflow-wrap: anywhere; }
.overlay strong { font-size: 20px; font-weight: 620; letter-spacing: -0.01em; }
.countdown { color: #c9d6d4; font-variant-numeric: tabular-nums; }
button { font: inherit; cursor: pointer; }
.again { min-height: 44px; padding: 8px 18px; border: 1px solid rgb(255 255 255 / 55%); border-radius: 9px; background: rgb(6 11 11 / 40%); color: #fff; font-weight: 570; }
.again:hover { border-color: var(--accent); color: var(--accent); }
.controls { position: absolute; inset: auto 0 0; display: flex; align-items: center; gap: 4px; padding: 26px 10px 8px; color: #fff; background: linear-gradient(transparent, rgb(6 11 11 / 88%) 70%); transition: opacity 0.2s; }
.frame[data-idle]:not([data-blocked]) .controls:not(:focus-within) { opacity: 0; pointer-events: none; }
.controls button { display: inline-flex; align-items: center; justify-content: center; gap: 7px; min-width: 44px; height: 44px; padding: 0 10px; border: 0; border-radius: 9px; background: none; color: inherit; font-weight: 570; }
.controls button:hover { background: rgb(255 255 255 / 16%); }
.controls button[data-muted] { background: #fff; color: #10201e; }
.controls button[data-muted]:hover { background: var(--accent); }
.controls input { width: 96px; height: 44px; margin: 0 6px 0 2px; accent-color: var(--accent); cursor: pointer; }
.gap { flex: 1; }
.latency { padding: 0 8px; font-size: 13px; font-variant-numeric: tabular-nums; white-space: nowrap; text-shadow: 0 0 4px #000; }
.icon { width: 22px; height: 22px; fill: none; stroke: currentcolor; stroke-width: 1.75; stroke-linecap: round; stroke-linejoin: round; flex: none; }
.icon-play, .icon-stop { fill: currentcolor; stroke: none; }
.status { position: absolute; width: 1px; height: 1px; margin: -1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@container (max-width: 460px) {
  .controls { gap: 0; padding: 20px 4px 4px; }
  .controls input { display: none; }
  .overlay { padding: 12px 12px 52px; gap: 9px; }
  .overlay p { font-size: 14px; gap: 3px; }
  .overlay strong { font-size: 17px; }
}
@container (max-width: 300px) { .latency, .word { display: none; } }
@media (prefers-reduced-motion: reduce) { .controls { transition: none; } }
@media (forced-colors: active) { .controls { background: Canvas; } .icon { stroke: ButtonText; } }
`;

let sheet = null; // one for all players of a page

export class WeirPlayer extends HTMLElement {
  static observedAttributes = ['src', 'token', 'muted', 'nodes', 'aria-label'];

  #built = false;
  #internals = this.attachInternals?.();
  #token = null; // set as a property, which leaves no trace in the page
  #wanted = true; // that it plays; false once a person has stopped it
  #connection = null;
  #meter = new Meter();
  #sampling = 0;
  #moving = { bytes: 0, at: 0 }; // when bytes last arrived
  #liveAt = 0;
  #firstFrame = NaN; // ms from the POST
  #played = false; // whether anything was, since the stream was opened
  #stalled = false;
  #over = false; // whether its end was told
  #opened = ''; // src that was opened last
  #served = ''; // origin that served last
  #known = []; // base URLs of other nodes, as the node tells
  #learn = { at: 0, busy: false };
  #latency = NaN;
  #words = '';
  #blocked = ''; // what the browser's autoplay policy refused: 'sound' or 'all'
  #resting = 0;
  #reopening = false;
  #broken = false; // that there is no connection, because src cannot be opened

  #frame;
  #video;
  #still;
  #overlay;
  #message;
  #again;
  #controls;
  #play;
  #mute;
  #volume;
  #delay;
  #shown; // the latency in it
  #pip;
  #full;
  #status;

  connectedCallback() {
    if (!this.#built) this.#build();
    // What was set before the element was defined hides its setters.
    for (const name of ['src', 'token', 'muted', 'volume']) {
      if (!Object.hasOwn(this, name)) continue;
      const value = this[name];
      delete this[name];
      this[name] = value;
    }
    if (this.#connection) return; // moved within the page
    if (this.getAttribute('autoplay') === 'off' && !this.#played) this.#wanted = false;
    this.#reopen();
  }

  // An element that is moved is taken out and put in again at once.
  disconnectedCallback() {
    queueMicrotask(() => {
      if (!this.isConnected) this.#close();
    });
  }

  attributeChangedCallback(name, old, value) {
    if (!this.#built || old === value) return;
    if (name === 'src') this.#reopen(true);
    else if (name === 'token') this.#newToken();
    else if (name === 'muted') this.#video.muted = value !== null;
    else if (name === 'aria-label') this.#name();
  }

  get src() { return this.getAttribute('src') ?? ''; }
  set src(value) { this.setAttribute('src', value); }

  // A new token is used for the next request; a session that runs goes on, as the
  // node lets it, unless the token is taken away.
  get token() { return this.#token ?? this.getAttribute('token') ?? ''; }
  set token(value) {
    this.#token = value === null || value === undefined ? null : String(value);
    this.#newToken();
  }

  get muted() { return this.#built ? this.#video.muted : this.hasAttribute('muted'); }
  set muted(value) {
    if (this.#built) this.#video.muted = Boolean(value);
    else this.toggleAttribute('muted', Boolean(value));
  }

  get volume() { return this.#built ? this.#video.volume : 1; }
  set volume(value) {
    if (!this.#built) this.#build();
    this.#video.volume = Math.min(1, Math.max(0, Number(value) || 0));
  }

  // state is 'idle', 'connecting', 'live', 'waiting', 'failed' or 'stopped'.
  get state() { return this.#connection?.state ?? (this.#broken ? 'failed' : this.#wanted ? 'idle' : 'stopped'); }
  get playing() { return this.state === 'live' && Number.isFinite(this.#firstFrame); }
  get played() { return this.#played; }
  get words() { return this.#words; } // what it does, for people
  get problem() { return this.#connection?.problem ?? null; }
  get connection() { return this.#connection; }
  get video() { return this.#video; }
  get node() { return originOf(this.#connection?.sessionURL || null) || ''; }
  get firstFrame() { return this.#firstFrame; }
  get latency() { return this.#latency; }
  get alternatives() { return [...this.#named(), ...this.#known]; }

  // play opens the stream, or tries again at once.
  play() {
    this.#wanted = true;
    if (this.#connection?.state === 'waiting') this.#connection.now();
    else if (!this.#connection || this.#connection.state === 'failed') this.#reopen(true);
  }

  // stop ends the session and keeps the last picture.
  stop() {
    if (!this.#wanted) return;
    this.#wanted = false;
    this.#keepStill();
    const played = this.#played;
    this.#drop();
    this.#say(played ? 'Stopped.' : 'Not playing.');
    this.#cover('', '');
    this.#draw();
    if (played) this.#end({ message: 'Stopped.', status: 0, code: '' });
    this.#emit('change');
  }

  // key takes a key that was pressed in the player, or in a page that is nothing
  // else: space, m and f.
  key(event) {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const on = event.composedPath()[0];
    if (on.closest?.('input:not([type=range]), textarea, select, [contenteditable]')) return;
    const key = event.key.toLowerCase();
    if (key === ' ' && on.closest?.('button, a, summary')) return; // theirs
    if (key === ' ') this.#toggle();
    else if (key === 'm') this.muted = !this.muted;
    else if (key === 'f') this.#fullscreen();
    else return;
    event.preventDefault();
    this.#stir();
  }

  #build() {
    this.#built = true;
    const root = this.attachShadow({ mode: 'open', delegatesFocus: true });
    if (!sheet) {
      sheet = new CSSStyleSheet();
      sheet.replaceSync(style);
    }
    root.adoptedStyleSheets = [sheet];

    const video = h('video', { part: 'video', id: 'video', autoplay: true, playsinline: true, tabindex: -1 });
    video.muted = this.hasAttribute('muted'); // the attribute alone does not mute an element made by script
    video.addEventListener('volumechange', () => this.#drawSound());
    video.addEventListener('pause', () => this.#paused());
    video.addEventListener('dblclick', () => this.#fullscreen());
    for (const type of ['enterpictureinpicture', 'leavepictureinpicture']) video.addEventListener(type, () => this.#draw());
    this.#video = video;
    // The last picture, while there is no newer one.
    this.#still = h('canvas', { class: 'still', id: 'still', 'aria-hidden': 'true', hidden: true });
    this.#message = h('p', { id: 'error', part: 'message' });
    this.#again = h('button', { class: 'again', part: 'button', id: 'again', type: 'button', onclick: () => this.#press() }, 'Try now');
    this.#overlay = h('div', { class: 'overlay', part: 'overlay', hidden: true }, this.#message, this.#again);

    const button = (id, label, onclick) => h('button', { type: 'button', id, part: 'button', 'aria-label': label, title: label, onclick });
    this.#play = button('play', 'Stop', () => this.#toggle());
    this.#mute = button('unmute', 'Unmute', () => { this.muted = !this.muted; });
    this.#volume = h('input', {
      type: 'range', id: 'volume', min: 0, max: 100, step: 5, 'aria-label': 'Volume',
      oninput: () => {
        video.volume = this.#volume.value / 100;
        video.muted = video.volume === 0;
      },
    });
    // Where the system alone sets the volume, nothing sticks.
    const before = video.volume;
    video.volume = 0.5;
    this.#volume.hidden = video.volume !== 0.5;
    video.volume = before;
    this.#shown = h('span');
    this.#delay = h('span', { class: 'latency', part: 'latency', title: 'From the node to the screen: half the round trip, the buffer and the decoder', hidden: true },
      h('span', { class: 'word' }, 'Latency '), this.#shown);
    this.#pip = button('pip', 'Picture in picture', () => this.#pictureInPicture());
    this.#pip.append(icon('pip'));
    this.#full = button('full', 'Full screen', () => this.#fullscreen());
    this.#full.append(icon('full'));
    this.#controls = h('div', { class: 'controls', part: 'controls' },
      this.#play, this.#mute, this.#volume, h('span', { class: 'gap' }), this.#delay, this.#pip, this.#full);
    this.#status = h('p', { class: 'status', id: 'status', role: 'status' });
    this.#frame = h('div', { class: 'frame', part: 'frame', tabindex: 0, role: 'group', 'aria-keyshortcuts': 'Space M F' },
      video, this.#still, this.#overlay, this.#controls, this.#status);
    this.#frame.addEventListener('keydown', (event) => this.key(event));
    for (const type of ['pointermove', 'pointerdown', 'focusin']) this.#frame.addEventListener(type, () => this.#stir());
    this.#frame.addEventListener('pointerleave', () => this.#rest());
    root.append(this.#frame);
    this.#name();
    this.#drawSound();
    this.#draw();
  }

  // name says to a screen reader which stream this is.
  #name() {
    const stream = this.#place()?.stream;
    const label = this.getAttribute('aria-label') || (stream ? `The stream ${stream}` : 'A live stream');
    attr(this.#frame, 'aria-label', label);
    attr(this.#video, 'aria-label', label);
  }

  // place is what src says, {base, stream, query}, where it is a node's.
  #place(address = this.src) {
    try {
      const url = new URL(address, document.baseURI);
      const [, path, stream] = /^(.*)\/whep\/(.+)$/.exec(url.pathname) ?? [];
      return stream ? { base: url.origin + path, stream: decodeURIComponent(stream), query: url.search } : null;
    } catch {
      return null;
    }
  }

  // named are the nodes that the page names.
  #named() {
    return (this.getAttribute('nodes') ?? '').split(/[\s,]+/).filter((base) => /^https?:\/\//.test(base)).map((base) => base.replace(/\/+$/, ''));
  }

  // elsewhere lists the stream's addresses at other nodes. A page's token is for
  // the nodes that the page names: anybody may be in a network.
  #elsewhere() {
    const place = this.#place();
    if (!place) return [];
    return [...this.#named(), ...(this.token ? [] : this.#known)].map((base) => `${base}/whep/${streamPath(place.stream)}${place.query}`);
  }

  #tokenFor(endpoint) {
    return [this.src, ...this.#named()].some((known) => originOf(known) === originOf(endpoint)) ? this.token : '';
  }

  #newToken() {
    if (!this.#built || !this.isConnected) return;
    const waits = ['failed', 'waiting'].includes(this.#connection?.state);
    if (waits || !this.token) this.#reopen(true);
  }

  // reopen opens the stream that the attributes name, once for all that change
  // together.
  #reopen(always = false) {
    if (!this.isConnected || !this.#built || (this.#connection && !always) || this.#reopening) return;
    this.#reopening = true;
    queueMicrotask(() => {
      this.#reopening = false;
      if (this.isConnected) this.#open();
    });
  }

  #open() {
    this.#drop();
    this.#name();
    this.#served = '';
    this.#known = [];
    this.#learn = { at: 0, busy: false };
    this.#played = this.#stalled = this.#over = this.#broken = false;
    if (this.src !== this.#opened) this.#still.hidden = true;
    this.#opened = this.src;
    this.#sampling ||= setInterval(() => this.#sample(), SAMPLE);
    if (!this.src) return this.#fail('No stream', 'This player has no src, the address of a stream such as https://node/whep/NAME.');
    const origin = originOf(this.src);
    if (!/^https?:/.test(origin)) return this.#fail('Not a stream', `“${this.src}” is no address of a stream, which looks like https://node/whep/NAME.`);
    if (!globalThis.RTCPeerConnection) return this.#fail('This browser cannot play it', 'It has no WebRTC, or has it turned off.');
    if (!this.#wanted) {
      this.#say('Not playing.');
      this.#cover('', '');
      this.#draw();
      this.#emit('change');
      return;
    }
    const next = new Connection({
      endpoint: new URL(this.src, document.baseURI).href,
      elsewhere: () => this.#elsewhere(),
      token: (endpoint) => this.#tokenFor(endpoint),
      prepare: (pc) => this.#prepare(pc, next),
      edit: stereo,
      onChange: (c) => c === this.#connection && this.#changed(c),
      // 409: not live yet. 404 and the like do not change by waiting.
      retryOn: (code) => code === 409 || code === 429 || code >= 500,
    });
    this.#connection = next;
    next.start();
  }

  // drop ends the session, if there is one.
  #drop() {
    const old = this.#connection;
    this.#connection = null;
    old?.stop();
    if (this.#video.srcObject) this.#video.srcObject = null;
    attr(this.#video, 'data-shown', null);
    this.#firstFrame = this.#latency = NaN;
  }

  #close() {
    this.#drop();
    clearInterval(this.#sampling);
    clearTimeout(this.#resting);
    this.#sampling = 0;
    this.#still.hidden = true;
    this.#say('');
    this.#states();
    this.#emit('change');
  }

  #prepare(pc, owner) {
    this.#keepStill();
    const media = new MediaStream();
    this.#firstFrame = this.#latency = NaN;
    this.#moving = { bytes: 0, at: performance.now() };
    attr(this.#video, 'data-shown', null);
    for (const kind of ['video', 'audio']) {
      media.addTrack(pc.addTransceiver(kind, { direction: 'recvonly' }).receiver.track);
    }
    const video = this.#video;
    video.srcObject = media;
    // Chromium takes a page for loading until each track of its players has come.
    pc.addEventListener('signalingstatechange', () => {
      const refused = pc.getTransceivers().filter((t) => ['inactive', 'stopped'].includes(t.currentDirection)).map((t) => t.receiver.track);
      if (!refused.length || video.srcObject !== media) return;
      video.srcObject = new MediaStream(media.getTracks().filter((track) => !refused.includes(track)));
      this.#start();
    });
    const look = (now, frame) => {
      if (owner !== this.#connection || pc !== owner.pc) return;
      // Chromium first shows a black frame of 2 × 2 in place of the stream.
      if (pc.connectionState === 'connected' && frame.width > 2) this.#began(now);
      else video.requestVideoFrameCallback(look);
    };
    video.requestVideoFrameCallback?.(look);
    this.#start();
  }

  // start plays what is there, with sound if the browser lets it, else without,
  // else after a click.
  async #start() {
    const video = this.#video;
    try {
      await video.play();
      if (this.#blocked === 'all') this.#blocked = '';
    } catch (error) {
      // Anything else means that the page went away or another stream came first.
      if (error.name !== 'NotAllowedError') return;
      if (!video.muted) {
        this.#blocked = 'sound';
        video.muted = true;
        return this.#start();
      }
      this.#blocked = 'all';
      this.#cover('Not playing', 'The browser wants a click before it plays.');
    }
    this.#draw();
  }

  // A browser pauses what a page unmutes without a click; a person pauses in the
  // picture-in-picture window.
  #paused() {
    if (!this.#wanted || !this.isConnected || !this.#video.srcObject || this.#video.ended) return;
    if (document.pictureInPictureElement && this.shadowRoot.pictureInPictureElement === this.#video) this.stop();
    else this.#start();
  }

  // keepStill copies the picture that is shown now, for the time until the next.
  #keepStill() {
    const [video, still] = [this.#video, this.#still];
    if (!video.hasAttribute('data-shown') || video.videoWidth <= 2) return;
    still.width = video.videoWidth;
    still.height = video.videoHeight;
    still.getContext('2d').drawImage(video, 0, 0);
    still.hidden = false;
  }

  // began takes the moment the first frame was painted.
  #began(at, words = 'Playing.') {
    if (Number.isFinite(this.#firstFrame) || this.#connection?.state !== 'live') return;
    this.#firstFrame = at - this.#connection.times.posted;
    this.#played = true;
    this.#stalled = this.#over = false;
    attr(this.#video, 'data-shown', '');
    this.#still.hidden = true;
    if (this.#blocked !== 'all') this.#uncover();
    this.#say(words);
    this.#draw();
    this.#stir();
    this.#emit('playing', { node: this.node, firstFrame: this.#firstFrame });
    this.#emit('change');
  }

  #changed(c) {
    if (c.state !== 'live' && this.#played && !this.#stalled && !this.#over) {
      this.#stalled = true;
      this.#emit('stalled', { message: c.problem?.message ?? '' });
    }
    if (c.state === 'waiting' || c.state === 'failed') {
      this.#keepStill(); // a stream that has ended turns black
      attr(this.#video, 'data-shown', null);
    }
    if (c.state === 'connecting') {
      const elsewhere = c.endpoint !== c.first;
      this.#say(elsewhere ? `${this.#played ? 'Going on' : 'Asking'} at ${new URL(c.endpoint).host}…` : c.sessionURL ? 'Connecting…' : 'Asking for the stream…');
      if (c.attempt === 1 && !this.#played) this.#cover('', this.#words, false);
    } else if (c.state === 'live') {
      this.#liveAt = performance.now();
      if (!Number.isFinite(this.#firstFrame)) this.#say('Connected. Waiting for the first frame…');
      const at = this.node;
      if (this.#served && at !== this.#served) this.#emit('moved', { from: this.#served, to: at });
      this.#served = at;
    } else if (c.state === 'waiting') {
      this.#wait();
      const title = headline(c.problem, this.#played);
      this.#say(`${title}. Trying again by itself.`);
      if (c.problem.status === 409 && this.#played) this.#end(c.problem);
    } else if (c.state === 'failed') {
      const { problem } = c;
      this.#cover(headline(problem, this.#played), problem.message);
      this.#say(`${headline(problem, this.#played)}.`);
      if (this.#played) this.#end(problem);
      this.#emit('error', { message: problem.message, status: problem.status, code: problem.code });
    }
    this.#draw();
    this.#emit('change');
  }

  #end({ message, status, code }) {
    if (this.#over) return;
    this.#over = true;
    this.#emit('ended', { message, status, code });
  }

  // fail is for what no connection is opened for.
  #fail(title, message) {
    this.#broken = true;
    this.#cover(title, message);
    this.#say(`${title}.`);
    this.#draw();
    this.#emit('error', { message, status: 0, code: '' });
    this.#emit('change');
  }

  // The countdown is shown on the picture; the status, which is read out, says
  // once why.
  #wait() {
    const { problem, retryAt } = this.#connection;
    const left = Math.max(0, Math.ceil((retryAt - performance.now()) / 1000));
    this.#cover(headline(problem, this.#played), problem.message, true, `Trying again in ${left} s`);
  }

  // cover shows words over the picture: with neither title nor message the button
  // alone.
  #cover(title, message, button = true, next = '') {
    this.#overlay.hidden = false;
    this.#again.hidden = !button;
    const c = this.#connection;
    text(this.#again, c?.state === 'waiting' ? 'Try now' : c?.state === 'failed' ? 'Try again' : this.#played ? 'Play again' : 'Play');
    const lines = [title, message, next];
    const wanted = lines.join('\n');
    if (this.#message.dataset.shown === wanted) return;
    this.#message.dataset.shown = wanted;
    this.#message.replaceChildren(...[title && h('strong', {}, title), message && h('span', {}, message), next && h('span', { class: 'countdown' }, next)].filter(Boolean));
  }

  // uncover shows the picture. What had the focus must not take it along.
  #uncover() {
    const focused = this.#overlay.contains(this.shadowRoot.activeElement);
    this.#overlay.hidden = true;
    if (focused) this.#frame.focus({ preventScroll: true });
  }

  #say(words) {
    this.#words = words;
    text(this.#status, words);
  }

  #press() {
    if (this.#blocked === 'all') {
      if (this.playing) this.#uncover();
      this.#start();
    }
    this.play();
  }

  #toggle() {
    const { state } = this;
    if (state === 'connecting' || state === 'live' || state === 'waiting') this.stop();
    else this.play();
  }

  #draw() {
    const runs = ['connecting', 'live', 'waiting'].includes(this.state);
    this.#button(this.#play, runs ? 'stop' : 'play', runs ? (this.#played || this.state === 'live' ? 'Stop' : 'Cancel') : this.#played ? 'Play again' : 'Play');
    const inPicture = this.shadowRoot.pictureInPictureElement === this.#video;
    this.#pip.hidden = !this.playing || !document.pictureInPictureEnabled || !this.#video.requestPictureInPicture;
    attr(this.#pip, 'aria-pressed', String(inPicture));
    this.#full.hidden = !this.playing || !(document.fullscreenEnabled || this.#video.webkitEnterFullscreen);
    if (!this.playing) this.#delay.hidden = true;
    this.#drawSound();
    this.#states();
  }

  #button(el, name, label, word = '') {
    if (el.dataset.is !== name + word) {
      el.dataset.is = name + word;
      children(el, [icon(name), word && h('span', { class: 'word' }, word)]);
    }
    attr(el, 'aria-label', label);
    attr(el, 'title', label);
  }

  #drawSound() {
    const { muted, volume } = this.#video;
    const asks = muted && this.playing; // to be clicked on
    if (!muted && this.#blocked === 'sound') this.#blocked = '';
    this.#button(this.#mute, muted ? 'silent' : 'sound', muted ? 'Unmute' : 'Mute', asks ? 'Unmute' : '');
    attr(this.#mute, 'data-muted', asks ? '' : null);
    this.#volume.value = muted ? 0 : Math.round(volume * 100);
    attr(this.#volume, 'aria-valuetext', muted ? 'muted' : `${Math.round(volume * 100)} %`);
    attr(this.#frame, 'data-blocked', this.#blocked || null);
  }

  #states() {
    const { states } = this.#internals ?? {};
    if (!states) return;
    const { state } = this;
    for (const [name, on] of [['playing', this.playing], ['waiting', state === 'waiting'], ['failed', state === 'failed'], ['stopped', state === 'stopped']]) {
      if (on) states.add(name);
      else states.delete(name);
    }
  }

  // stir shows the controls until the pointer has rested.
  #stir() {
    attr(this.#frame, 'data-idle', null);
    clearTimeout(this.#resting);
    this.#resting = setTimeout(() => this.#rest(), IDLE);
  }

  #rest() {
    clearTimeout(this.#resting);
    if (this.playing) attr(this.#frame, 'data-idle', '');
  }

  async #pictureInPicture() {
    try {
      if (this.shadowRoot.pictureInPictureElement === this.#video) await document.exitPictureInPicture();
      else await this.#video.requestPictureInPicture();
    } catch (error) {
      this.#say(`No picture in picture: ${error.message}`);
    }
  }

  async #fullscreen() {
    try {
      if (document.fullscreenElement === this || this.getRootNode().fullscreenElement === this) await document.exitFullscreen();
      else if (this.requestFullscreen && document.fullscreenEnabled) await this.requestFullscreen();
      else this.#video.webkitEnterFullscreen?.();
    } catch (error) {
      this.#say(`No full screen: ${error.message}`);
    }
  }

  async #sample() {
    const sampled = this.#connection;
    if (!sampled) return;
    if (sampled.state === 'waiting') this.#wait();
    const now = await this.#meter.sample(sampled.pc);
    if (!now || sampled !== this.#connection || sampled.state !== 'live') return;
    sampled.heed(now.heard, now.at);
    // A hidden page paints nothing, yet it decodes.
    if (now.framesDecoded > 0 && (document.hidden || !this.#video.requestVideoFrameCallback)) this.#began(performance.now());
    else if (now.framesDecoded === 0 && now.received > 0 && (!this.#video.srcObject?.getVideoTracks().length || now.at - this.#liveAt > SOUND_ONLY)) this.#soundOnly(now);
    if (now.received > this.#moving.bytes) this.#moving = { bytes: now.received, at: now.at };
    else if (now.at - this.#moving.at > STALL) {
      sampled.giveUp(`Nothing has arrived for ${STALL / 1000} seconds.`);
      return;
    }
    this.#latency = now.latency;
    this.#delay.hidden = !this.playing || !Number.isFinite(now.latency);
    text(this.#shown, ms(now.latency));
    this.#ask(now.at);
    this.#emit('sample', now);
  }

  // soundOnly begins a stream that has no picture, as its bytes tell.
  #soundOnly(now) {
    if (now.receivedVideo > 0 || Number.isFinite(this.#firstFrame)) return;
    this.#began(performance.now(), 'Playing sound; the stream has no picture.');
    if (this.#blocked !== 'all') this.#cover('', 'Sound only', false);
  }

  // ask learns of other nodes while the one in use can still tell.
  async #ask(at) {
    const place = this.#place(this.#connection.endpoint);
    if (!place || this.#learn.busy || at < this.#learn.at) return;
    const learn = this.#learn;
    learn.busy = true;
    learn.at = at + NODES;
    try {
      const response = await fetch(`${place.base}/nodes?stream=${encodeURIComponent(place.stream)}`, { cache: 'no-cache', signal: AbortSignal.timeout(5000) });
      if (response.status === 404) learn.at = Infinity; // no node of weir
      const { nodes } = response.ok ? await response.json() : {};
      if (learn === this.#learn && Array.isArray(nodes)) {
        this.#known = nodes.filter((base) => typeof base === 'string' && /^https?:\/\//.test(base) && (location.protocol !== 'https:' || base.startsWith('https:'))).slice(0, NODES_KEPT);
      }
    } catch {
      // It is asked again; until then what it said before counts.
    } finally {
      learn.busy = false;
    }
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

// Two nodes' modules in one page define the same.
if (!customElements.get('weir-player')) customElements.define('weir-player', WeirPlayer);
