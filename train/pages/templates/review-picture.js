// The spectrogram: a grey picture of levels, which is coloured here so that its range can be changed.
"use strict";
const picture = {
  grey: null, width: 0, height: 0, noise: null, number: -1,
  async read(number, text) {
    const image = new Image();
    image.src = `data:image/jpeg;base64,${text}`;
    await image.decode();
    const canvas = new OffscreenCanvas(image.width, image.height), context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    const pixels = context.getImageData(0, 0, image.width, image.height).data;
    const grey = new Uint8Array(pixels.length / 4);
    for (let i = 0; i < grey.length; i++) grey[i] = pixels[4 * i];
    Object.assign(picture, { grey, width: image.width, height: image.height, noise: medians(grey, image.width), number });
  },
  draw() {
    const clip = data.clips[picture.number];
    if (!clip) return;
    const { width, height, grey, noise } = picture, [low, high] = picture.shown(clip);
    const colours = palettes[show("colours").value];
    const rows = Math.max(1, Math.round((height * Number(show("top-khz").value)) / data.khz));
    const canvas = show("spectrogram"), context = canvas.getContext("2d");
    canvas.width = width; canvas.height = rows;
    const drawn = context.createImageData(width, rows), pixels = new Uint32Array(drawn.data.buffer);
    const db = -data.floorDb / 255, levelled = show("level").checked, middle = medianOf(noise);
    for (let y = 0; y < rows; y++) {
      const from = (height - rows + y) * width, offset = data.floorDb - (levelled ? (noise[height - rows + y] - middle) * db : 0);
      for (let x = 0; x < width; x++) {
        const share = (grey[from + x] * db + offset - low) / (high - low);
        pixels[y * width + x] = colours[share <= 0 ? 0 : share >= 1 ? 255 : Math.round(share * 255)];
      }
    }
    context.putImageData(drawn, 0, 0);
    show("decibels").textContent = `${Math.round(low)} to ${Math.round(high)} dB`.replaceAll("-", "−");
  },
  // The levels in dB that are black and white.
  shown(clip) {
    const [low, high] = clip.shownDb, range = (high - low) * 2 ** (-Number(show("contrast").value) / 10);
    const middle = (low + high) / 2 - Number(show("brightness").value);
    return [middle - range / 2, middle + range / 2];
  },
};
// The median of each row, which is the level of what sounds there all the time.
function medians(grey, width) {
  const found = [];
  for (let from = 0; from < grey.length; from += width) found.push(medianOf(grey.subarray(from, from + width)));
  return found;
}
function medianOf(values) { return Uint8Array.from(values).sort()[values.length >> 1]; }

const palettes = {};
for (const [name, hex] of Object.entries(data.colours)) {
  // Canvas pixels are RGBA bytes: on machines that store the lowest byte first, 0xAABBGGRR.
  palettes[name] = Uint32Array.from({ length: 256 }, (_, i) => {
    const [red, green, blue] = [0, 2, 4].map((at) => parseInt(hex.slice(6 * i + at, 6 * i + at + 2), 16));
    return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  });
}
