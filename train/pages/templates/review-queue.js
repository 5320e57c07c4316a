// Detections: which there are, which the filters let through, and in what order.
"use strict";
const SPREAD_A_CLASS = 50, BINS = 10, FEWEST_DIFFERS = 0.5;

function bytes(text) { return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)); }
for (const clip of data.clips) {
  clip.scores = new Float32Array(bytes(clip.scores).buffer);
  clip.truth = clip.truth === null ? null : bytes(clip.truth);
  clip.pseudo = clip.pseudo === null ? null : new Float32Array(bytes(clip.pseudo).buffer);
}

const nClasses = data.classes.length;
const seconds = (value) => Number(value.toFixed(3));
const scoreOf = (clip, window, index) => Number(clip.scores[window * nClasses + index].toPrecision(7));
// "present", "absent" or "" where nothing is known.
const truthOf = (clip, window, index) => clip.truth === null ? "" : ["absent", "present", ""][clip.truth[window * nClasses + index]];
const logit = (score) => { const p = Math.min(Math.max(score, 1e-6), 1 - 1e-6); return Math.log(p / (1 - p)); };
const title = (name) => data.commonNames[name] ? `${data.commonNames[name]} (${name})` : name;

// A detection is a window of a clip and a class; the names of COLUMNS are what a mark keeps of it.
function detection(number, window, index) {
  const clip = data.clips[number], start = seconds((clip.first + window) * data.windowS);
  return {
    number, window, index, truth: truthOf(clip, window, index),
    row: { recording: clip.recording, start, end: seconds(start + data.windowS), class: data.classes[index], score: scoreOf(clip, window, index) },
  };
}

function filters() {
  const limit = (id, otherwise) => { const value = show(id).value; return value === "" || Number.isNaN(Number(value)) ? otherwise : Number(value); };
  return { species: show("species").value, low: limit("low", 0), high: limit("high", 1), order: show("order").value, which: show("which").value };
}
function passes(found, which) {
  if (which === "open") return !marks.of(found.row);
  if (which === "marked") return !!marks.of(found.row);
  if (which === "labelled") return found.truth === "present";
  if (which === "differs") return found.truth !== "" && (found.truth === "present") !== (found.row.score >= FEWEST_DIFFERS);
  return true;
}
function queue() {
  const wanted = filters(), found = [];
  const columns = wanted.species === "" ? data.classes.keys() : [Number(wanted.species)];
  for (const index of columns) {
    const of_class = [];
    data.clips.forEach((clip, number) => {
      for (let window = 0; window < clip.count; window++) {
        const score = scoreOf(clip, window, index);
        if (score < wanted.low || score > wanted.high) continue;
        const one = detection(number, window, index);
        if (passes(one, wanted.which)) of_class.push(one);
      }
    });
    found.push(...(wanted.order === "spread" ? spread(of_class) : of_class));
  }
  if (wanted.order === "highest") found.sort((a, b) => b.row.score - a.row.score);
  return found;
}
// As many from each tenth of the range in logits as there are, in an order that says nothing of the score.
function spread(of_class) {
  if (!of_class.length) return [];
  const levels = of_class.map((one) => logit(one.row.score));
  const low = Math.min(...levels), width = (Math.max(...levels) - low) / BINS || 1;
  const bins = Array.from({ length: BINS }, () => []);
  const mixed = of_class.map((one, i) => [chance(`${one.row.recording} ${one.row.start} ${one.row.class}`), one, levels[i]]).sort((a, b) => a[0] - b[0]);
  for (const [, one, level] of mixed) bins[Math.min(BINS - 1, Math.floor((level - low) / width))].push(one);
  const taken = [];
  for (let turn = 0; taken.length < SPREAD_A_CLASS && bins.some((bin) => bin.length > turn); turn++) {
    const round = bins.flatMap((bin) => bin.slice(turn, turn + 1));
    taken.push(...round.sort((a, b) => chance(a.row.recording + a.row.start) - chance(b.row.recording + b.row.start)));
  }
  return taken.slice(0, SPREAD_A_CLASS);
}
// The same number from 0 to 1 for the same text (FNV-1a).
function chance(text) {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  hash ^= hash >>> 15; hash = Math.imul(hash, 0x2c1b3c6d); hash ^= hash >>> 12;
  return (hash >>> 0) / 2 ** 32;
}
// The classes of a clip's strip: those of the highest scores, those labelled there, and the one in review.
function topClasses(clip, current, most) {
  const best = data.classes.map((_, index) => {
    let score = 0, labelled = false;
    for (let window = 0; window < clip.count; window++) {
      score = Math.max(score, scoreOf(clip, window, index));
      labelled ||= truthOf(clip, window, index) === "present";
    }
    return { index, score, labelled };
  }).sort((a, b) => b.score - a.score);
  return best.filter((one, rank) => rank < most || one.labelled || one.index === current).map((one) => one.index);
}
