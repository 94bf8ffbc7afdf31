// Plays the frames of every .film: a button and a slider; nothing moves by itself.
"use strict";
for (const film of document.querySelectorAll(".film")) {
  const frames = [...film.querySelectorAll(".frame")];
  const [button, slider, output] = ["button", "input", "output"].map((name) => film.querySelector(name));
  let timer = null;
  const show = (index) => {
    frames.forEach((frame, i) => { frame.hidden = i !== index; });
    slider.value = index;
    output.textContent = frames[index].dataset.label;
    slider.setAttribute("aria-valuetext", frames[index].dataset.label);
  };
  const stop = () => {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
  };
  const play = () => {
    button.textContent = "Pause";
    timer = setInterval(() => show((Number(slider.value) + 1) % frames.length), 800);
  };
  slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
  button.addEventListener("click", () => (timer === null ? play() : stop()));
  button.hidden = matchMedia("(prefers-reduced-motion: reduce)").matches;
  film.querySelector(".controls").hidden = false;
  show(0);
}
