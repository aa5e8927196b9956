// Live figures of a peer connection, from getStats.

const WINDOW = 2000; // ms over which rates are taken

// Meter samples a connection. Counters restart with every connection; rates
// are over the last WINDOW. latency is, in ms, what the way from the node to the
// screen takes: half a round trip, the buffer and the decoder. What lies before
// the node is not in it, since clocks of different machines cannot be compared.
export class Meter {
  #pc = null;
  #past = [];

  // sample returns the figures, or null without a connection. Rates are NaN
  // until there are two samples.
  async sample(pc) {
    if (!pc || pc.connectionState === 'closed') return null;
    if (pc !== this.#pc) {
      this.#pc = pc;
      this.#past = [];
    }
    const report = await pc.getStats();
    const all = [...report.values()];
    const of = (type, kind) => all.filter((entry) => entry.type === type && (!kind || entry.kind === kind));
    const sum = (entries, field) => entries.reduce((n, entry) => n + (entry[field] ?? 0), 0);
    const pair = of('candidate-pair').find((p) => p.nominated && p.state === 'succeeded') ?? of('candidate-pair').find((p) => p.state === 'succeeded');
    const codecOf = (entry) => report.get(entry?.codecId)?.mimeType?.split('/')[1] ?? '';

    const now = { at: performance.now(), rtt: pair?.currentRoundTripTime ?? NaN };
    const inVideo = of('inbound-rtp', 'video');
    const inAudio = of('inbound-rtp', 'audio');
    const outVideo = of('outbound-rtp', 'video');
    const outAudio = of('outbound-rtp', 'audio');
    const remote = of('remote-inbound-rtp');
    now.received = sum([...inVideo, ...inAudio], 'bytesReceived');
    now.receivedVideo = sum(inVideo, 'bytesReceived');
    // Whatever came from the node, media or not.
    now.heard = sum(of('transport'), 'bytesReceived') || sum(of('candidate-pair'), 'bytesReceived');
    now.sent = sum([...outVideo, ...outAudio], 'bytesSent');
    now.framesDecoded = sum(inVideo, 'framesDecoded');
    now.framesDropped = sum(inVideo, 'framesDropped');
    now.framesEncoded = sum(outVideo, 'framesEncoded');
    now.packets = sum([...inVideo, ...inAudio], 'packetsReceived');
    now.lost = sum([...inVideo, ...inAudio], 'packetsLost');
    now.freezes = sum(inVideo, 'freezeCount');
    now.jitter = Math.max(...[...inVideo, ...inAudio].map((e) => e.jitter ?? 0), 0) * 1000;
    now.nacks = sum([...inVideo, ...outVideo], 'nackCount');
    now.plis = sum([...inVideo, ...outVideo], 'pliCount');
    now.keyFrames = sum(inVideo, 'keyFramesDecoded') + sum(outVideo, 'keyFramesEncoded');
    now.remoteLost = remote.length ? Math.max(...remote.map((e) => e.fractionLost ?? 0)) : NaN;
    const buffered = sum(inVideo, 'jitterBufferEmittedCount');
    now.buffer = buffered ? (sum(inVideo, 'jitterBufferDelay') / buffered) * 1000 : NaN;
    // From the first packet of a frame to its decoding; browsers that do not say
    // so tell how long the buffer held it.
    now.processing = sum(inVideo, 'totalProcessingDelay') || sum(inVideo, 'jitterBufferDelay');
    now.held = sum(inAudio, 'jitterBufferDelay');
    now.samples = sum(inAudio, 'jitterBufferEmittedCount');
    const video = inVideo[0] ?? outVideo[0];
    now.width = video?.frameWidth ?? 0;
    now.height = video?.frameHeight ?? 0;
    now.codecs = [codecOf(video), codecOf(inAudio[0] ?? outAudio[0])].filter(Boolean);
    now.limited = outVideo[0]?.qualityLimitationReason ?? 'none';

    this.#past.push(now);
    while (this.#past.length > 2 && now.at - this.#past[1].at >= WINDOW) this.#past.shift();
    const then = this.#past[0];
    const time = (now.at - then.at) / 1000;
    const rate = (field) => (time > 0 ? (now[field] - then[field]) / time : NaN);
    now.bitrateIn = rate('received') * 8;
    now.bitrateOut = rate('sent') * 8;
    now.fps = inVideo.length ? rate('framesDecoded') : rate('framesEncoded');
    const [packets, lost] = [now.packets - then.packets, now.lost - then.lost];
    now.lossNow = packets + lost > 0 ? Math.max(0, lost) / (packets + lost) : 0;
    const [frames, samples] = [now.framesDecoded - then.framesDecoded, now.samples - then.samples];
    const delay = frames > 0 ? (now.processing - then.processing) / frames : samples > 0 ? (now.held - then.held) / samples : NaN;
    now.latency = (now.rtt / 2 + delay) * 1000;
    return now;
  }
}
