// The token that the page was opened with, as #token=… or ?token=…: it is taken
// out of the address bar and the history at once, and is kept in memory only.

import { originOf } from './address.js';

let token = '';

function take() {
  const url = new URL(location.href);
  const fragment = new URLSearchParams(url.hash.slice(1));
  const given = fragment.get('token') ?? url.searchParams.get('token');
  if (given === null) return;
  token = given.trim();
  fragment.delete('token');
  url.searchParams.delete('token');
  history.replaceState(history.state, '', `${url.pathname}${url.search}${fragment.size ? `#${fragment}` : ''}`);
}

take();
addEventListener('hashchange', take); // it was put behind the address of an open page

// tokenFor is the token for endpoint, or ''. Only the node that the page came from
// gets it: it vouches for us at others that it sends us to.
export const tokenFor = (endpoint) => (originOf(endpoint) === location.origin ? token : '');
