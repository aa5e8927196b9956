// The state of the network, kept current: server-sent events while they work,
// polling when they do not.

const POLL = 2000; // ms between polls while there are no events
const SILENCE = 12000; // ms without an event after which the state is asked for
const RETRY_EVENTS = 15000; // ms until events are tried again
const HIDDEN = 5000; // ms between polls of a hidden page
const LIMITED = 10000; // ms between polls of a node that does not show its network

// Feed calls onState(state) with each new state, onHappened(events) with what
// happened at the node, which may be known already, and onStatus(status, since)
// when its own changes: 'connecting', 'live' (events), 'polling' (no events,
// but answers) or 'lost' (no answer since the given performance.now(), 0 if
// there never was one).
//
// A node that does not show its network to us is asked seldom, and has no events.
// While the page is hidden it only polls, slowly. A browser opens no more than
// six connections to a plain-HTTP server; six forgotten tabs with events would
// starve the seventh.
export class Feed {
  #source = null;
  #eventsAfter = 0; // do not try events before this performance.now()
  #heard = 0; // when the last state arrived
  #asking = false;
  #failed = false; // the last try for events
  status = 'connecting';
  since = performance.now();

  #limited = true; // until the node has answered
  // stream() is what the page is about, for nodes that tell only what it needs.
  constructor({ onState, onHappened, onStatus, stream }) {
    this.onState = onState;
    this.onHappened = onHappened;
    this.onStatus = onStatus;
    this.stream = stream;
    document.addEventListener('visibilitychange', () => {
      if (document.hidden) {
        this.#source?.close();
        this.#source = null;
      } else this.#tick();
    });
  }

  start() {
    setInterval(() => this.#tick(), POLL);
    this.#tick();
  }

  #tick() {
    const now = performance.now();
    if (!this.#source && !document.hidden && !this.#limited && now >= this.#eventsAfter) this.#listen();
    const patience = this.#limited ? (this.#heard && this.status !== 'lost' ? LIMITED : 0) : document.hidden ? HIDDEN : this.#source?.readyState === EventSource.OPEN ? SILENCE : 0;
    if (!this.#heard || now - this.#heard >= patience) this.#ask();
  }

  #listen() {
    const source = new EventSource('/console/events');
    this.#source = source;
    source.onopen = () => {
      this.#failed = false;
    };
    source.onmessage = (event) => {
      if (this.#source === source) this.#take(event.data);
    };
    source.addEventListener('happened', (event) => {
      if (this.#source === source) this.onHappened([JSON.parse(event.data)]);
    });
    source.onerror = () => {
      source.close();
      if (this.#source !== source) return;
      this.#source = null;
      this.#failed = true;
      this.#eventsAfter = performance.now() + RETRY_EVENTS;
      this.#ask();
    };
  }

  async #ask() {
    if (this.#asking) return;
    this.#asking = true;
    try {
      const stream = this.stream();
      const response = await fetch(`/console/state${stream ? `?stream=${encodeURIComponent(stream)}` : ''}`, { cache: 'no-store', signal: AbortSignal.timeout(5000) });
      if (!response.ok) throw new Error(`${response.status}`);
      const body = await response.text();
      if (this.status === 'lost') this.#eventsAfter = 0; // it is back: so may events be
      this.#take(body);
    } catch {
      this.#say('lost');
    } finally {
      this.#asking = false;
    }
  }

  // take throws if body is not a state.
  #take(body) {
    const state = JSON.parse(body);
    this.#heard = performance.now();
    const first = this.#limited && !state.limited;
    this.#limited = Boolean(state.limited);
    if (first && !this.#source) this.#tick(); // events may stay away until something changes: this came by asking
    this.#say(this.#failed ? 'polling' : 'live');
    this.onState(state);
    if (state.happened) this.onHappened(state.happened);
  }

  #say(status) {
    if (status === this.status) return;
    this.status = status;
    // What was known is as old as the last answer.
    this.since = status === 'lost' ? this.#heard : performance.now();
    this.onStatus(status, this.since);
  }
}
