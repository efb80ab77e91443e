// The slider of the samples: shows one frame at a time. Without it all frames are there, one below the other.
for (const frames of document.querySelectorAll(".frames")) {
  const input = frames.querySelector("input");
  if (!input) continue;
  const figures = frames.querySelectorAll(".frame");
  frames.classList.add("sliding");
  const show = () => figures.forEach((figure, index) => figure.classList.toggle("shown", index === Number(input.value)));
  input.addEventListener("input", show);
  show();
}
