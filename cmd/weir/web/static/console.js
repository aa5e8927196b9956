// The console: which page is shown, and the state they share.

import { Feed } from './feed.js';
import { attr, text } from './dom.js';
import { seconds } from './format.js';
import { read } from './model.js';
import { networkPage } from './network.js';
import { playPage } from './play.js';
import { publishPage } from './publish.js';

const main = document.getElementById('page');
const banner = document.getElementById('banner');
const feedSign = document.getElementById('feed');
const where = document.getElementById('where');
const network = document.getElementById('network-name');
const onAir = document.getElementById('on-air');

// A page is {el, title, update(model), leave(), live?()}. live says, in words,
// what must go on while another page is shown; '' if nothing.
let page = null;
let kept = null; // the publish page, while it publishes
let model = null;

function show() {
  const path = location.pathname;
  let name = 'network';
  if (path === '/publish') name = 'publish';
  else if (path === '/play' || path.startsWith('/play/') || model?.limited) name = 'play';

  if (page?.live?.()) kept = page;
  else page?.leave();
  if (name === 'publish' && kept) {
    page = kept;
    kept = null;
  } else {
    // For tests and for the curious; the page fills it in.
    const out = { page: name, state: 'idle', sessionURL: '', node: '', error: '', framesDecoded: 0, bytesReceived: 0 };
    if (name === 'publish') page = publishPage(new URLSearchParams(location.search), out, sayOnAir);
    else if (name === 'play') page = playPage(path === '/' ? '' : streamOf(path), out);
    else page = networkPage();
    page.out = out;
  }
  window.weir = page.out;

  main.className = `page-${name}`;
  main.replaceChildren(page.el);
  document.title = `${page.title} · weir`;
  for (const link of document.querySelectorAll('nav a')) {
    attr(link, 'aria-current', link.dataset.page === name ? 'page' : null);
  }
  sayOnAir();
  if (model) page.update(model);
  if (happened.length) page.happened?.(happened);
}

// sayOnAir shows in the header that this browser is publishing.
function sayOnAir() {
  const live = kept?.live() ?? '';
  if (kept && !live) {
    kept.leave();
    kept = null;
  }
  onAir.hidden = !live;
  text(onAir, live);
}

function streamOf(path) {
  const encoded = path.slice('/play/'.length);
  try {
    return decodeURIComponent(encoded);
  } catch {
    return encoded; // a stray "%": shown as it is, and refused as a name
  }
}

// Links inside the console change the page without loading it again.
document.addEventListener('click', (event) => {
  const link = event.target.closest?.('a[href]');
  if (!link || event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  if (link.origin !== location.origin || link.target || link.hash || link.pathname.startsWith('/assets/')) return;
  event.preventDefault();
  if (link.href !== location.href) history.pushState(null, '', link.href);
  show();
  scrollTo(0, 0);
  main.focus({ preventScroll: true });
});
addEventListener('popstate', show);

// What happened at this node, as far as it told.
const HAPPENED = 60;
let happened = [];

const feed = new Feed({
  stream: () => (location.pathname.startsWith('/play/') ? streamOf(location.pathname) : ''),
  onHappened: (events) => {
    const fresh = events.filter((e) => !happened.some((known) => known.seq === e.seq));
    if (!fresh.length) return;
    happened = [...happened, ...fresh].sort((a, b) => a.seq - b.seq).slice(-HAPPENED);
    draw();
  },
  onState: (state) => {
    const was = model?.limited ?? false;
    model = read(state);
    document.documentElement.toggleAttribute('data-limited', model.limited);
    if (model.limited !== was && location.pathname === '/') show();
    const self = model.nodes.get(model.self);
    text(network, model.network && `network ${model.network}`);
    text(where, self?.label ?? '');
    attr(where, 'title', model.self || null);
    draw();
  },
  onStatus: (status) => sayStatus(status),
});

// draw hands the model and what happened to the page, together, since nodes are
// called by the model's names; at most once per frame: events may come faster
// than a busy machine paints. A page in the background is not painted, so a
// timer backs the frame up.
let drawing = 0;
function draw() {
  if (drawing) return;
  const run = () => {
    if (!drawing) return;
    cancelAnimationFrame(frame);
    clearTimeout(drawing);
    drawing = 0;
    page.update(model);
    page.happened?.(happened);
    kept?.update(model);
  };
  const frame = requestAnimationFrame(run);
  drawing = setTimeout(run, 250);
}

let lostTimer = 0;
function sayStatus(status) {
  attr(feedSign, 'data-status', status);
  text(feedSign, { connecting: 'Connecting', live: 'Live', polling: 'Polling', lost: 'No contact' }[status]);
  attr(feedSign, 'title', {
    connecting: 'Asking this node for the state of the network',
    live: 'Changes arrive as they happen',
    polling: 'Events do not arrive; the state is asked for every two seconds',
    lost: 'This node does not answer',
  }[status]);
  clearInterval(lostTimer);
  banner.hidden = status !== 'lost';
  if (status !== 'lost') return;
  const said = () => text(banner, feed.since
    ? `This node has not answered for ${seconds(Math.floor((performance.now() - feed.since) / 1000)).replace('.0', '')}. What you see is what it last said; the console asks again every two seconds.`
    : 'This node does not answer. Is it running? The console asks again every two seconds.');
  said();
  // The banner is an alert: it is read out when it appears, and its counting
  // must not be, so the figure changes only every ten seconds.
  lostTimer = setInterval(said, 10000);
}

show();
feed.start();
