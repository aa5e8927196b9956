// The test pattern: a moving picture with a running frame counter, and a tone
// with a flash that shows whether sound and picture are in sync. It needs
// neither camera nor microphone.

const RATE = 30; // frames per second
const TONE = 100; // ms that a tone and its flash last
const AHEAD = 20; // ms from deciding on a tone to its begin

// Trusted Types want to know where a worker's script comes from.
const types = globalThis.trustedTypes?.createPolicy('weir', {
  createScriptURL(url) {
    if (url !== '/assets/ticker.js') throw new TypeError(`${url} is not the console's`);
    return url;
  },
});

// startPattern returns {stream, sound(), stop()}: a MediaStream of a video
// track, to which sound() adds an audio track. It is to be called after a
// click, because browsers allow no sound before one.
export function startPattern({ width, height }) {
  const canvas = document.createElement('canvas');
  canvas.width = width;
  canvas.height = height;
  const paint = painter(canvas);
  paint(0, false);
  const stream = canvas.captureStream(RATE);
  stream.getVideoTracks()[0].contentHint = 'motion';

  const url = '/assets/ticker.js';
  const ticker = new Worker(types ? types.createScriptURL(url) : url);
  let frame = 0;
  let beat = -Infinity; // performance.now() at which the last tone begins
  ticker.onmessage = () => {
    const since = performance.now() - beat;
    paint(++frame, since >= 0 && since < TONE);
  };
  ticker.postMessage(1000 / RATE);

  let audio = null;
  let beeping = 0;

  return {
    stream,
    sound() {
      if (audio) return;
      audio = new AudioContext();
      const out = audio.createMediaStreamDestination();
      beeping = beep(audio, out, (at) => {
        beat = at;
      });
      stream.addTrack(out.stream.getAudioTracks()[0]);
    },
    stop() {
      ticker.terminate();
      clearInterval(beeping);
      audio?.close();
      for (const track of stream.getTracks()) track.stop();
    },
  };
}

// beep plays a short, soft tone at each second, left and right in turn, a higher
// one every fifth, and says beforehand when by performance.now(). It returns the
// interval's number.
function beep(audio, out, announce) {
  const tone = audio.createOscillator();
  const gain = audio.createGain();
  gain.gain.value = 0;
  const side = audio.createStereoPanner();
  tone.connect(gain).connect(side).connect(out);
  tone.start();
  let beat = 0;
  return setInterval(() => {
    const at = audio.currentTime + AHEAD / 1000;
    announce(performance.now() + AHEAD);
    side.pan.setValueAtTime(beat % 2 ? 1 : -1, at);
    tone.frequency.setValueAtTime(beat++ % 5 ? 440 : 660, at);
    gain.gain.setValueAtTime(0, at);
    gain.gain.linearRampToValueAtTime(0.2, at + 0.01);
    gain.gain.setTargetAtTime(0, at + TONE / 1000, 0.03);
  }, 1000);
}

// painter draws bars like those of a test card, a sweep that shows smoothness,
// the time, a strip that is white while the tone sounds, and the frame's number
// twice: in digits, and as 16 black or white squares along the bottom, which a
// program can read after any codec.
function painter(canvas) {
  const { width, height } = canvas;
  const g = canvas.getContext('2d', { alpha: false });
  const bars = ['#e8ecea', '#d9b44a', '#3fb6ad', '#4f9e58', '#a0559b', '#c8553d', '#3a62b8'];
  const unit = height / 36;
  const mono = 'ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace';
  return (frame, flash) => {
    bars.forEach((colour, i) => {
      g.fillStyle = colour;
      g.fillRect(Math.floor((i * width) / bars.length), 0, Math.ceil(width / bars.length), height * 0.6);
    });
    g.fillStyle = '#0d1718';
    g.fillRect(0, height * 0.6, width, height * 0.4);

    // Water over the weir: waves whose phase is the frame's.
    for (let layer = 0; layer < 3; layer++) {
      g.fillStyle = ['#0f766e', '#12908a', '#2bb5aa'][layer];
      g.beginPath();
      g.moveTo(0, height * 0.84);
      for (let i = 0; i <= 48; i++) {
        const x = (i * width) / 48;
        const phase = (x / width) * Math.PI * (3 + layer) + (frame / RATE) * (1.6 - layer * 0.5) * (layer % 2 ? -1 : 1);
        g.lineTo(x, height * (0.63 + layer * 0.055) + Math.sin(phase) * unit * 1.1);
      }
      g.lineTo(width, height * 0.84);
      g.fill();
    }

    const x = ((frame % (RATE * 2)) / (RATE * 2)) * width;
    g.fillStyle = 'rgb(255 255 255 / 85%)';
    g.fillRect(x, 0, Math.max(2, unit / 3), height * 0.6);

    g.fillStyle = 'rgb(8 16 17 / 82%)';
    g.fillRect(width * 0.27, height * 0.11, width * 0.46, height * 0.34);
    g.fillStyle = '#fff';
    if (flash) g.fillRect(width * 0.27, height * 0.11, width * 0.46, height * 0.04);
    g.textAlign = 'center';
    g.textBaseline = 'middle';
    g.font = `600 ${unit * 5.4}px ${mono}`;
    g.fillText(String(frame).padStart(6, '0'), width / 2, height * 0.255);
    g.font = `${unit * 2.6}px ${mono}`;
    g.fillText(new Date().toISOString().slice(11, 23), width / 2, height * 0.385);

    const box = width / 16;
    for (let bit = 0; bit < 16; bit++) {
      g.fillStyle = (frame >> (15 - bit)) & 1 ? '#fff' : '#000';
      g.fillRect(bit * box, height * 0.88, Math.ceil(box), height * 0.12);
    }
  };
}
