// The state of the network, kept current: server-sent events while they work,
// polling when they do not.

const POLL = 2000; // ms between polls while there are no events
const SILENCE = 12000; // ms without an event after which the state is asked for
const RETRY_EVENTS = 15000; // ms until events are tried again
const HIDDEN = 5000; // ms between polls of a hidden page

// Feed calls onState(state) with each new state, and onStatus(status, since)
// when its own changes: 'connecting', 'live' (events), 'polling' (no events,
// but answers) or 'lost' (no answer since the given performance.now(), 0 if
// there never was one).
//
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

  constructor(onState, onStatus) {
    this.onState = onState;
    this.onStatus = onStatus;
    document.addEventListener('visibilitychange', () => {
      if (document.hidden) {
        this.#source?.close();
        this.#source = null;
      } else this.#tick();
    });
  }

  start() {
    setInterval(() => this.#tick(), POLL);
    this.#tick(); // events may stay away until something changes, so ask as well
  }

  #tick() {
    const now = performance.now();
    if (!this.#source && !document.hidden && now >= this.#eventsAfter) this.#listen();
    const patience = document.hidden ? HIDDEN : this.#source?.readyState === EventSource.OPEN ? SILENCE : 0;
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
      const response = await fetch('/console/state', { cache: 'no-store', signal: AbortSignal.timeout(5000) });
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
    this.#say(this.#failed ? 'polling' : 'live');
    this.onState(state);
  }

  #say(status) {
    if (status === this.status) return;
    this.status = status;
    // What was known is as old as the last answer.
    this.since = status === 'lost' ? this.#heard : performance.now();
    this.onStatus(status, this.since);
  }
}
