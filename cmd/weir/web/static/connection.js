// One WHIP or WHEP session and the patience around it: it opens, notices when
// it breaks, goes on at another node or waits, and opens again until stop() is
// called.
//
// WHIP is RFC 9725, WHEP draft-ietf-wish-whep: an offer is POSTed as
// application/sdp, 201 brings the answer and, in Location, the session's own
// URL. A node that is full answers 307; fetch follows it and sends the offer
// again.

import { originOf } from './address.js';

const ANSWER = 10000; // ms for a node to answer a POST, cascades included
const CONNECT = 12000; // ms from the answer until media may flow
const LAPSE = 1000; // ms that ICE may stay disconnected, which took it seconds to see
const SILENCE = 1100; // ms without a byte from the node, after which it is asked whether it is alive
const PROBE = 800; // ms for it to say so
const FIRST_WAIT = 1000; // ms before the first new attempt
const LONGEST_WAIT = 15000;

// Problem is why a session could not be opened or did not last. again says
// whether trying again can help; wait is the server's Retry-After in ms, or
// NaN; status is 0 where no server answered; code is the server's machine word
// for it (RFC 9457), or ''; silent says that the node does not answer, so that
// another one may be asked at once.
export class Problem extends Error {
  constructor(message, { status = 0, code = '', again = true, wait = NaN, silent = false } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.again = again;
    this.wait = wait;
    this.silent = silent;
  }
}

// Connection drives one session. prepare(pc) adds tracks or transceivers;
// edit(sdp) may change the offer; elsewhere() lists further endpoints that are
// asked when the one in use is silent; token(endpoint) is the bearer token for an
// endpoint (RFC 6750), or ''; onChange(connection) is called on every change.
// state is one of 'idle', 'connecting', 'live', 'waiting' (to try again at
// retryAt), 'failed' (for good) and 'stopped'.
//
// The token is sent with the offer and with nothing else: browsers take it off
// when another origin is redirected to, and a session's URL is a secret itself.
export class Connection {
  state = 'idle';
  problem = null; // Problem: why it is waiting or failed
  retryAt = 0; // performance.now()
  attempt = 0;
  times = {}; // performance.now() of: posted, answered, connected

  #running = null; // AbortController of the run
  #session = null; // the run's {pc, url, etag, redirected}
  #retryOn; // (status) → whether to try again
  #wake = null; // ends the wait before a new attempt
  #giveUp = null; // ends a live session
  #silent = new Set(); // endpoints and origins that did not answer since one was live

  constructor({ endpoint, elsewhere = () => [], token = () => '', prepare, edit = (sdp) => sdp, onChange, retryOn }) {
    this.first = endpoint;
    this.endpoint = endpoint;
    this.elsewhere = elsewhere;
    this.token = token;
    this.prepare = prepare;
    this.edit = edit;
    this.onChange = onChange;
    this.#retryOn = retryOn;
    addEventListener('pagehide', this.#leave);
  }

  get pc() {
    return this.#session?.pc ?? null;
  }

  get sessionURL() {
    return this.#session?.url ?? '';
  }

  get etag() {
    return this.#session?.etag ?? '';
  }

  get redirected() {
    return this.#session?.redirected ?? false;
  }

  // start opens the session and keeps it open; it returns at once.
  start() {
    if (this.#running) return;
    const run = new AbortController();
    this.#running = run;
    this.attempt = 0;
    // Who was cut off need not wait any longer than the network was away.
    addEventListener('online', () => this.now(), { signal: run.signal });
    this.#run(run.signal);
  }

  // stop ends the session and tells the node. It may be called at any time.
  stop() {
    removeEventListener('pagehide', this.#leave);
    this.#running?.abort();
    this.#running = null;
    this.#hangUp(this.#session);
    if (this.state !== 'failed') this.#set('stopped');
  }

  // now tries again at once instead of at retryAt.
  now() {
    this.#wake?.();
  }

  // The page goes away: the node should not have to find out by silence. If it
  // comes back from the browser's cache, the connection starts anew.
  #leave = (event) => {
    const wasRunning = Boolean(this.#running);
    this.#running?.abort();
    this.#running = null;
    this.#hangUp(this.#session);
    if (event.persisted && wasRunning) addEventListener('pageshow', () => this.start(), { once: true });
  };

  async #run(signal) {
    while (!signal.aborted) {
      this.attempt++;
      this.problem = null;
      const session = { pc: new RTCPeerConnection({ bundlePolicy: 'max-bundle' }), url: '', etag: '', redirected: false };
      this.#session = session;
      this.#set('connecting');
      try {
        await this.#open(session, signal);
        this.attempt = 0;
        this.#silent.clear();
        this.#set('live');
        await this.#lost(session.pc, signal);
      } catch (error) {
        this.#hangUp(session);
        if (signal.aborted) return;
        this.problem = error instanceof Problem ? error : new Problem(error.message, { again: false });
        if (!this.problem.again) {
          this.#running?.abort();
          this.#running = null;
          this.#set('failed');
          return;
        }
        if (this.problem.silent && this.#goElsewhere(session)) continue;
        const backOff = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** Math.max(0, this.attempt - 1));
        // A tenth of chance, so that viewers who lost the same node do not all
        // ask the next one in the same instant.
        const wait = Number.isFinite(this.problem.wait) ? this.problem.wait : backOff * (0.9 + 0.2 * Math.random());
        this.retryAt = performance.now() + wait;
        this.#set('waiting');
        await this.#sleep(wait, signal);
      }
    }
  }

  // goElsewhere turns to an endpoint that has not been silent yet. When all
  // have been, it begins again with the first, after a wait.
  #goElsewhere(session) {
    this.#silent.add(originOf(this.endpoint));
    this.#silent.add(originOf(session.lastURL || this.endpoint));
    const next = [this.first, ...this.elsewhere()].find((endpoint) => !this.#silent.has(originOf(endpoint)));
    this.endpoint = next ?? this.first;
    if (!next) this.#silent.clear();
    return Boolean(next);
  }

  // heed takes how many bytes have come from the node by now, performance.now().
  // A stream may pause, and a publisher hears little; so a node that is silent
  // is asked whether it is alive, and only given up if it does not say so.
  async heed(bytes, now) {
    const session = this.#session;
    if (this.state !== 'live' || !session) return;
    if (session.heard !== bytes) {
      session.heard = bytes;
      session.heardAt = now;
    }
    if (now - session.heardAt < SILENCE || session.asking) return;
    session.asking = true;
    const alive = !session.url || await answers(session.url);
    session.asking = false;
    session.heardAt = performance.now();
    if (!alive && session === this.#session) this.#giveUp?.('The node has gone silent.', true);
  }

  #sleep(time, signal) {
    return new Promise((resolve) => {
      setTimeout(resolve, time);
      signal.addEventListener('abort', resolve, { once: true });
      this.#wake = resolve;
    }).finally(() => {
      this.#wake = null;
    });
  }

  async #open(session, signal) {
    const { pc } = session;
    this.times = {};
    this.prepare(pc);
    const offer = await pc.createOffer();
    await pc.setLocalDescription({ type: 'offer', sdp: this.edit(offer.sdp) });

    const headers = { 'Content-Type': 'application/sdp' };
    const token = this.token(this.endpoint);
    if (token) {
      if (!/^[A-Za-z0-9._~+/-]+=*$/.test(token)) {
        throw new Problem('The token holds characters that no bearer token has. Was it cut, or copied with something around it?', { again: false });
      }
      headers.Authorization = `Bearer ${token}`;
    }

    // The node is ICE-lite and puts all its candidates into the answer, so the
    // offer goes out before any of ours are gathered.
    this.times.posted = performance.now();
    const asked = fetch(this.endpoint, {
      method: 'POST',
      headers,
      body: pc.localDescription.sdp,
      cache: 'no-store',
      signal: AbortSignal.timeout(ANSWER),
    });
    let response;
    let body;
    try {
      response = await Promise.race([asked, aborted(signal)]);
      body = await response.text();
    } catch (error) {
      if (signal.aborted) {
        // What the node opens after that is let go all the same.
        asked.then((late) => late.status === 201 && end(sessionOf(late))).catch(() => {});
        throw error;
      }
      throw await unreachable(this.endpoint, error);
    }
    this.times.answered = performance.now();
    if (response.status !== 201) throw this.#refusal(response, body);

    session.url = sessionOf(response);
    session.etag = response.headers.get('ETag') ?? '';
    session.redirected = response.redirected;
    signal.throwIfAborted(); // run deletes the session
    this.onChange(this);
    try {
      await pc.setRemoteDescription({ type: 'answer', sdp: body });
    } catch (error) {
      throw new Problem(`The node's answer could not be used: ${error.message}`, { again: false });
    }
    await this.#connected(pc, signal);
    this.times.connected = performance.now();
  }

  #refusal(response, body) {
    const { said, code } = refusalOf(response, body);
    return new Problem(said || response.statusText || `answered with ${response.status} and no reason`, {
      status: response.status,
      code,
      again: this.#retryOn(response.status),
      wait: retryAfter(response.headers.get('Retry-After')),
    });
  }

  #connected(pc, signal) {
    let timer = 0;
    return new Promise((resolve, reject) => {
      timer = setTimeout(
        () => reject(new Problem(noPath('The node answered, but no media path to it was found. A firewall may block UDP.'))), CONNECT);
      const look = () => {
        if (pc.connectionState === 'connected') resolve();
        else if (pc.connectionState === 'failed' || pc.connectionState === 'closed') {
          reject(new Problem(noPath('No media path to the node was found.')));
        }
      };
      pc.addEventListener('connectionstatechange', look);
      signal.addEventListener('abort', () => reject(signal.reason), { once: true });
      look();
    }).finally(() => clearTimeout(timer));
  }

  // lost rejects once the session is broken.
  #lost(pc, signal) {
    return new Promise((_, reject) => {
      let timer = 0;
      const look = () => {
        clearTimeout(timer);
        if (pc.connectionState === 'failed') reject(new Problem('The connection to the node broke.', { silent: true }));
        else if (pc.connectionState === 'closed') reject(new Problem('The node closed the session.'));
        else if (pc.connectionState === 'disconnected') {
          timer = setTimeout(() => reject(new Problem('The node has gone silent.', { silent: true })), LAPSE);
        }
      };
      pc.addEventListener('connectionstatechange', look);
      // A DTLS close-notify shows on the transport, and not everywhere on the
      // connection.
      const transport = (pc.getReceivers()[0] ?? pc.getSenders()[0])?.transport;
      transport?.addEventListener('statechange', () => {
        if (transport.state === 'closed' || transport.state === 'failed') reject(new Problem('The node closed the session.'));
      });
      signal.addEventListener('abort', () => reject(signal.reason), { once: true });
      this.#giveUp = (message, silent) => reject(new Problem(message, { silent }));
      look();
    }).finally(() => {
      this.#giveUp = null;
    });
  }

  // giveUp ends a live session that the caller found useless, and opens another.
  giveUp(message) {
    this.#giveUp?.(message, false);
  }

  #hangUp(session) {
    if (!session) return;
    session.pc.close();
    const { url } = session;
    session.lastURL = url;
    session.url = '';
    end(url);
  }

  #set(state) {
    this.state = state;
    this.onChange(this);
  }
}

// aborted rejects once the signal is.
function aborted(signal) {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    else signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}

// sessionOf is the URL of the session that a response opens, or ''.
function sessionOf(response) {
  const location = response.headers.get('Location');
  return location ? new URL(location, response.url).href : '';
}

// end tells the node that a session is over. keepalive: the request outlives the
// page. One that is gone already is as good as deleted, so the answer does not
// matter.
function end(url) {
  if (url) fetch(url, { method: 'DELETE', keepalive: true }).catch(() => {});
}

// answers reports whether the node of url says that it is alive. Another server may
// not let a page read its answer, but it answers.
async function answers(url) {
  const ask = (mode) => fetch(new URL('/healthz', url), { mode, cache: 'no-store', signal: AbortSignal.timeout(PROBE) });
  const [said, any] = await Promise.allSettled([ask('cors'), ask('no-cors')]);
  return said.status === 'fulfilled' ? said.value.status < 500 : any.status === 'fulfilled';
}

// Origins that this page's own policy has kept it from.
const forbidden = new Set();
addEventListener('securitypolicyviolation', (event) => {
  if (event.effectiveDirective === 'connect-src') forbidden.add(originOf(event.blockedURI));
});

// unreachable finds out why there was no answer that the page may read. Browsers
// tell pages no reason.
async function unreachable(endpoint, error) {
  const url = new URL(endpoint, document.baseURI);
  if (error.name === 'TimeoutError') return new Problem(`${url.host} did not answer within ${ANSWER / 1000} seconds.`, { silent: true });
  if (location.protocol === 'https:' && url.protocol === 'http:') {
    return new Problem(`This page came by https, so the browser does not let it talk to ${url.host}, which has http only.`, { again: false });
  }
  const alive = url.origin !== location.origin && await answers(url);
  if (forbidden.has(url.origin)) {
    return new Problem(`The policy of this page does not let it talk to ${url.host}: its Content-Security-Policy must have ${url.origin} in connect-src.`, { again: false });
  }
  if (alive) return new Problem(`${url.host} is up, but this page may not read its answer: the node must allow pages of ${location.origin}.`);
  return new Problem(`${url.host} could not be reached.`, { silent: true });
}

// noPath adds to why there is no media path what is known of the browser.
function noPath(why) {
  const loopback = /^(localhost|127\.|\[::1\])/.test(location.hostname);
  return loopback && navigator.userAgent.includes('Firefox/')
    ? `${why} Firefox uses no loopback address for media: reach the node by another address of this machine, or with another browser.` : why;
}

// stereo has Opus sent and received in stereo, which browsers do only when
// asked (RFC 7587, section 6.1: stereo is what we take, sprop-stereo what we
// may send).
export function stereo(sdp) {
  for (const [, type] of sdp.matchAll(/^a=rtpmap:(\d+) opus\/48000\/2\r?$/gim)) {
    sdp = sdp.replace(new RegExp(`^a=fmtp:${type} .*$`, 'm'), (line) => {
      const [, params, end] = /^(.*?)(\r?)$/.exec(line);
      return /[; ]stereo=/.test(params) ? line : `${params};stereo=1;sprop-stereo=1${end}`;
    });
  }
  return sdp;
}

// refusalOf is what a node says for people and for programs: the detail and the
// code of a problem (RFC 9457), or the text of another server.
function refusalOf(response, body) {
  if (response.headers.get('Content-Type')?.startsWith('application/problem+json')) {
    try {
      const problem = JSON.parse(body);
      return { said: firstLine(String(problem.detail || problem.title || '')), code: String(problem.code ?? '') };
    } catch {
      // Cut short on its way: shown as it is.
    }
  }
  // A web page says nothing in one line, and is no answer of a node.
  if (response.headers.get('Content-Type')?.startsWith('text/html')) {
    return { said: `${new URL(response.url).host} answered with a web page (${response.status}), so no stream is served under this address.`, code: '' };
  }
  return { said: firstLine(body), code: '' };
}

// firstLine takes what a node said, of which only a sane amount is shown.
function firstLine(body) {
  const line = body.trim().split('\n', 1)[0].trim();
  return line.length > 300 ? `${line.slice(0, 299)}…` : line;
}

// retryAfter reads seconds or an HTTP date, in ms from now; at most a minute.
function retryAfter(value) {
  if (!value) return NaN;
  const time = /^\d+$/.test(value.trim()) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isFinite(time) ? Math.min(60000, Math.max(500, time)) : NaN;
}
