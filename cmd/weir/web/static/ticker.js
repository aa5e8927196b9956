// A clock that keeps its pace in a hidden page, where the page's own timers
// slow down to one tick a second.

let timer = 0;

self.onmessage = (event) => {
  clearInterval(timer);
  timer = event.data > 0 ? setInterval(() => self.postMessage(0), event.data) : 0;
};
