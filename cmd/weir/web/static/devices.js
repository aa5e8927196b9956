// Cameras and microphones: which there are, which the person chose, and how loud
// it is.

import { attr, h, text } from './dom.js';

const LOOK = 100; // ms between looks at the level
const FLOOR = -60; // dBFS that the meter begins with
const SILENT = -55; // dBFS below which nothing is heard
const QUIET = 5000; // ms of silence after which it is said

export const NONE = 'none'; // instead of a device: no microphone

// remembered is the device chosen before, '' if none was. Browsers give a device
// the same ID at every visit of one origin, until they are told to forget it.
function remembered(kind) {
  try {
    return localStorage.getItem(`weir.${kind}`) ?? '';
  } catch {
    return ''; // storage is blocked: nothing is remembered
  }
}

function remember(kind, id) {
  try {
    localStorage.setItem(`weir.${kind}`, id);
  } catch {
    // As above.
  }
}

// Choice is a select of the devices of one kind, 'camera' or 'microphone'. onChoose
// is called when the person takes another.
export class Choice {
  wanted; // device ID, NONE, or '': whichever the browser gives
  #kind;
  #insisted = false; // that it was chosen just now, so that no other will do

  constructor(kind, onChoose) {
    this.#kind = kind;
    this.wanted = remembered(kind);
    this.el = h('select', {
      id: kind,
      onchange: () => {
        this.wanted = this.el.value;
        this.#insisted = true;
        remember(kind, this.wanted);
        onChoose();
      },
    });
    this.offer([], '');
  }

  // constraint is what getUserMedia is asked for, false for nothing. any gives up
  // what was chosen at an earlier visit.
  constraint(any) {
    if (this.wanted === NONE) return false;
    return this.wanted && (this.#insisted || !any) ? { deviceId: { exact: this.wanted } } : {};
  }

  // offer lists the devices, of which the one with the ID inUse was given. It
  // reports whether that is not the one chosen at an earlier visit.
  offer(devices, inUse) {
    this.#insisted = false;
    const other = Boolean(inUse && this.wanted && this.wanted !== NONE && this.wanted !== inUse);
    const options = devices.filter((d) => d.deviceId).map((d, i) => [d.deviceId, d.label || `${this.#kind} ${i + 1}`]);
    if (this.#kind === 'microphone') options.push([NONE, 'none']);
    const current = inUse || (this.wanted === NONE ? NONE : '');
    // Before the browser has been asked, and where it gives none.
    if (!options.some(([id]) => id === current)) options.unshift(['', this.#kind === 'microphone' && devices.length === 0 ? 'the browser’s choice' : 'not chosen yet']);
    const key = JSON.stringify([options, current]);
    if (this.el.dataset.options !== key) {
      this.el.dataset.options = key;
      this.el.replaceChildren(...options.map(([value, label]) => h('option', { value, selected: value === current }, label)));
    }
    return other;
  }
}

// mediaProblem says why a camera or a screen could not be opened, and what to do.
export function mediaProblem(source, error) {
  const what = source === 'screen' ? 'screen' : 'camera';
  if (error.name === 'NotAllowedError') return `The browser was not allowed to use the ${what}. Allow it in the address bar, then choose it again.`;
  if (error.name === 'NotFoundError') return `There is no ${what} here. The test pattern needs none.`;
  if (error.name === 'OverconstrainedError') return 'The camera or microphone that was chosen is not there any more. Choose another.';
  if (error.name === 'NotReadableError') return `The ${what} is in use by another program.`;
  return `The ${what} could not be opened: ${error.message}`;
}

// Level shows how loud a track is, and says when nothing is heard for a while:
// what is muted by the system looks like any other microphone.
export class Level {
  #audio = null;
  #source = null;
  #timer = 0;
  #bar = h('span', { class: 'level-fill' });
  #meter = h('span', { class: 'level-bar', role: 'meter', 'aria-label': 'Sound level', 'aria-valuemin': FLOOR, 'aria-valuemax': 0 }, this.#bar);
  #hint = h('span', { class: 'hint level-hint', role: 'status' });
  db = -Infinity; // dBFS, the loudest of the last LOOK

  constructor() {
    this.el = h('span', { class: 'level' }, this.#meter, this.#hint);
    this.#show(FLOOR);
  }

  // watch shows track, or nothing. muted() says whether it is silent on purpose,
  // speech whether something should be heard all the time.
  watch(track, muted, speech) {
    this.close();
    if (!track) return;
    const audio = new AudioContext();
    const analyser = new AnalyserNode(audio, { fftSize: 4096 });
    this.#source = audio.createMediaStreamSource(new MediaStream([track]));
    this.#source.connect(analyser);
    this.#audio = audio;
    const samples = new Float32Array(analyser.fftSize);
    let heard = performance.now();
    this.#timer = setInterval(() => {
      // Some browsers run it only once the page was clicked on.
      if (audio.state === 'suspended') audio.resume().catch(() => {});
      analyser.getFloatTimeDomainData(samples);
      const peak = samples.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
      this.db = 20 * Math.log10(peak);
      const now = performance.now();
      if (this.db > SILENT || muted() || audio.state !== 'running') heard = now;
      this.#show(Math.max(FLOOR, Math.min(0, this.db)));
      text(this.#hint, muted() ? 'Muted' : speech && now - heard > QUIET ? 'Nothing is heard. Is the microphone muted elsewhere?' : '');
    }, LOOK);
  }

  #show(db) {
    this.#bar.style.width = `${Math.round((1 - db / FLOOR) * 100)}%`;
    attr(this.#meter, 'aria-valuenow', Math.round(db));
    attr(this.#meter, 'aria-valuetext', db <= FLOOR ? 'silence' : `${Math.round(db)} dB`);
  }

  close() {
    clearInterval(this.#timer);
    this.#source?.disconnect();
    this.#audio?.close().catch(() => {});
    this.#audio = this.#source = null;
    this.db = -Infinity;
    this.#show(FLOOR);
    text(this.#hint, '');
  }
}
