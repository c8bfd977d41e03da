"use strict";
// The viewer: anatomy below one map at a time, in three planes and in 3D. Maps of regions are painted here, from the
// table's numbers on the voxels of the regions, so that every column can be shown without a volume of its own.
(() => {
  const section = document.getElementById("viewer");
  if (!section) return;
  const content = JSON.parse(document.getElementById("data").textContent);
  const get = (id) => document.getElementById(id);
  const [canvas, chosenView, chosenMap, threshold, opacity] = ["canvas", "view", "map", "threshold", "opacity"].map(get);
  const { Niivue, NVImage, SLICE_TYPE, SHOW_RENDER, MULTIPLANAR_TYPE } = niivue;
  const nv = new Niivue({
    backColor: [0, 0, 0, 1],
    crosshairColor: [0.55, 0.9, 1, 0.9],
    crosshairWidth: 0.8,
    crosshairWidthUnit: "mm",
    dragAndDropEnabled: false,
    isColorbar: false,
    isOrientationTextVisible: true,
    showAllOrientationMarkers: true,
    isRadiologicalConvention: false,
    loadingText: "",
    logLevel: "error",
    multiplanarPadPixels: 14,
    multiplanarLayout: MULTIPLANAR_TYPE.GRID,
    multiplanarShowRender: SHOW_RENDER.ALWAYS,
    show3Dcrosshair: true,
  });
  const state = { view: null, map: null, labels: null, values: null, place: [0, 0, 0] };
  let busy = Promise.resolve();

  function decoded(name, more = {}) {
    return NVImage.loadFromBase64({ base64: content.volumes[name], name: `${name}.nii.gz`, ...more });
  }

  function units(map) {
    return map.units ? ` (${map.units})` : "";
  }

  function shown(value) {
    return Math.abs(value) >= 1000 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
  }

  // Everything that changes volumes waits for the change before it.
  function soon(change) {
    busy = busy.then(change).catch((error) => {
      section.dataset.state = "failed";
      get("readout").textContent = `The viewer cannot show this map: ${error.message}`;
    });
    return busy;
  }

  // Returns an image of the map with 32-bit values, which the threshold can change.
  async function imageOf(view, map) {
    const image = map.volume ? await decoded(map.volume) : state.labels.clone();
    const [slope, inter] = map.volume ? [image.hdr.scl_slope || 1, image.hdr.scl_inter || 0] : [1, 0];
    const values = new Float32Array(view.names.length + 1);
    (map.values || []).forEach((value, row) => {
      if (view.rows[row] > 0 && value !== null) values[view.rows[row]] = value;
    });
    image.img = Float32Array.from(image.img, map.volume ? (raw) => raw * slope + inter : (label) => values[label]);
    image.hdr.datatypeCode = 16;
    image.hdr.numBitsPerVoxel = 32;
    image.hdr.scl_slope = 1;
    image.hdr.scl_inter = 0;
    return image;
  }

  async function showMap() {
    const view = content.views[state.view];
    const map = view.maps.find((each) => each.key === chosenMap.value);
    // A map that is spread around points covers everything, unless less of it is shown.
    if (map && (!state.map || Boolean(map.volume) !== Boolean(state.map.volume))) threshold.value = map.volume ? 60 : 10;
    state.map = map || null;
    while (nv.volumes.length > 1) nv.removeVolume(nv.volumes[1]);
    if (map) {
      const overlay = await imageOf(view, map);
      state.values = overlay.img;
      overlay.name = map.key;
      overlay.colormapType = 0; // the only one whose opacity can be changed; what is 0 is transparent in the colours
      overlay.colormap = map.low < 0 ? "glas-for" : "glas-score";
      overlay.colormapNegative = map.low < 0 ? "glas-against" : "";
      // Shown as shares of the largest value: NiiVue does not tell values apart that differ by less than 1e-5.
      [overlay.cal_min, overlay.cal_max] = [0, 1];
      [overlay.cal_minNeg, overlay.cal_maxNeg] = [0, -1];
      nv.addVolume(overlay);
      threshold.disabled = opacity.disabled = false;
    } else {
      threshold.disabled = opacity.disabled = true;
    }
    applyScale();
  }

  // The threshold is a share of the largest value, so that it means the same for every map.
  function applyScale() {
    const map = state.map;
    const overlay = nv.volumes[1];
    if (!map || !overlay) {
      get("scale").hidden = true;
      return;
    }
    const largest = Math.max(Math.abs(map.low), Math.abs(map.high)) || 1;
    const least = (Number(threshold.value) / 100) * largest;
    overlay.img = state.values.map((value) => (Math.abs(value) < least ? 0 : value / largest));
    nv.setOpacity(1, Number(opacity.value) / 100);
    nv.updateGLVolume();
    threshold.setAttribute("aria-valuetext", `${shown(least)}${units(map)}`);
    get("threshold-value").textContent = `${shown(least)}, ${threshold.value} % of the largest`;
    get("opacity-value").textContent = `${opacity.value} %`;
    drawScale(map, least, largest);
    readOut();
  }

  function drawScale(map, least, largest) {
    get("scale").hidden = false;
    const bar = get("colours");
    const context = bar.getContext("2d");
    const low = map.low < 0 ? -largest : 0;
    for (let x = 0; x < bar.width; x += 1) {
      const value = low + ((largest - low) * x) / (bar.width - 1);
      const table = content.colours[value < 0 ? "glas-against" : map.low < 0 ? "glas-for" : "glas-score"];
      const i = Math.min(255, Math.round((Math.abs(value) / largest) * 255));
      context.fillStyle = Math.abs(value) < least ? "#777" : `rgb(${table.R[i]},${table.G[i]},${table.B[i]})`;
      context.fillRect(x, 0, 1, bar.height);
    }
    get("scale-low").textContent = shown(low);
    get("scale-high").textContent = shown(largest);
    get("scale-name").textContent = `${map.title}${units(map)}; grey: below the threshold`;
    bar.setAttribute("aria-label", `Colours of ${map.title} from ${shown(low)} to ${shown(largest)}${units(map)}`);
  }

  async function showView() {
    state.view = chosenView.value;
    const view = content.views[state.view];
    const before = state.map ? state.map.key : null;
    chosenMap.replaceChildren(...view.maps.map((map) => new Option(map.title, map.key)));
    if (!view.maps.length) chosenMap.replaceChildren(new Option("no map", ""));
    if (view.maps.some((map) => map.key === before)) chosenMap.value = before;
    else if (view.maps.some((map) => map.key === "t")) chosenMap.value = "t";
    state.labels = view.labels ? await decoded(view.labels) : null;
    while (nv.volumes.length) nv.removeVolume(nv.volumes[nv.volumes.length - 1]);
    const below = view.background || view.labels || (view.maps[0] || {}).volume;
    if (!below) throw new Error("there is no volume to show");
    const anatomy = await decoded(below, { colormap: "gray" });
    anatomy.cal_min = view.background ? 1 : 1e6; // without anatomy, maps lie on black
    anatomy.cal_max = view.background ? 255 : 2e6;
    nv.addVolume(anatomy);
    await showMap();
  }

  function regionAt(mm) {
    const view = content.views[state.view];
    if (!state.labels) return "";
    const vox = Array.from(state.labels.mm2vox(mm));
    const [, nx, ny, nz] = state.labels.hdr.dims;
    if (vox.some((value, axis) => value < 0 || value >= [nx, ny, nz][axis])) return "";
    const label = state.labels.img[vox[0] + nx * (vox[1] + ny * vox[2])];
    return label > 0 ? view.names[label - 1] : "";
  }

  function readOut() {
    const [x, y, z] = state.place.map((value) => Math.round(value));
    const view = content.views[state.view];
    const name = regionAt(state.place);
    let text = `x ${x}, y ${y}, z ${z} mm`;
    if (state.labels) text += `: ${name || "no region"}`;
    if (state.map && state.map.values && name) {
      const row = view.rows.indexOf(view.names.indexOf(name) + 1);
      const value = row < 0 ? null : state.map.values[row];
      text += `, ${state.map.title} ${value === null ? "n/a" : shown(value)}${units(state.map)}`;
    } else if (state.map && nv.volumes[1]) {
      const overlay = nv.volumes[1];
      const [i, j, k] = overlay.mm2vox(state.place);
      const [, nx, ny, nz] = overlay.hdr.dims;
      const inside = i >= 0 && j >= 0 && k >= 0 && i < nx && j < ny && k < nz;
      const value = inside ? state.values[i + nx * (j + ny * k)] : 0;
      text += `, ${state.map.title} ${shown(value)}${units(state.map)}`;
    }
    get("readout").textContent = text;
  }

  function goTo(place) {
    nv.scene.crosshairPos = nv.mm2frac(place);
    nv.createOnLocationChange();
    nv.drawScene();
  }

  nv.onLocationChange = (location) => {
    state.place = Array.from(location.mm).slice(0, 3);
    if (state.view) readOut();
  };

  // Rows of the tables move the crosshair, and the viewer changes to their result.
  document.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-place]");
    if (!row || event.target.closest("thead")) return;
    for (const other of document.querySelectorAll("tr.chosen")) other.classList.remove("chosen");
    row.classList.add("chosen");
    const key = row.closest("table").dataset.view;
    const place = row.dataset.place.split(" ").map(Number);
    soon(async () => {
      if (key !== state.view) {
        chosenView.value = key;
        await showView();
      }
      goTo(place);
      const { top, bottom } = canvas.getBoundingClientRect();
      if (bottom < 80 || top > window.innerHeight - 80) canvas.scrollIntoView({ block: "center" });
    });
  });

  // The keyboard moves the crosshair by one voxel of the anatomy.
  const steps = {
    ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0], ArrowDown: [0, -1, 0], ArrowUp: [0, 1, 0],
    PageDown: [0, 0, -1], PageUp: [0, 0, 1],
  };
  canvas.addEventListener("keydown", (event) => {
    if (!(event.key in steps)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const step = nv.volumes[0].pixDims ? nv.volumes[0].pixDims[1] : 2;
    goTo(state.place.map((value, axis) => value + step * steps[event.key][axis]));
  }, true);

  get("layout").addEventListener("change", (event) => {
    const types = { all: "MULTIPLANAR", axial: "AXIAL", coronal: "CORONAL", sagittal: "SAGITTAL", solid: "RENDER" };
    nv.setSliceType(SLICE_TYPE[types[event.target.value]]);
  });
  get("radiological").addEventListener("change", (event) => nv.setRadiologicalConvention(event.target.checked));
  chosenView.addEventListener("change", () => soon(showView));
  chosenMap.addEventListener("change", () => soon(showMap));
  for (const slider of [threshold, opacity]) slider.addEventListener("input", () => soon(applyScale));

  window.glas3d = { nv, state, ready: () => busy };
  (async () => {
    try {
      await nv.attachToCanvas(canvas);
    } catch {
      section.dataset.state = "failed";
      get("readout").textContent = "The viewer needs WebGL 2, which this browser does not offer. The page holds all else.";
      return;
    }
    for (const [name, colours] of Object.entries(content.colours)) nv.addColormap(name, colours);
    await soon(showView);
    if (section.dataset.state !== "failed") {
      const first = document.querySelector(`table[data-view="${state.view}"] tr[data-place]`);
      if (first) goTo(first.dataset.place.split(" ").map(Number));
      section.dataset.state = "ready";
    }
  })();
})();
