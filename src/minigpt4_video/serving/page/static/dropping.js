// Files may be dropped anywhere on the page.

const veil = document.getElementById("dropping");
let depth = 0; // of elements that the pointer has entered and not left

/** Call `receive(files)` for files that are dropped. */
export function onDrop(receive) {
  listen("dragenter", () => (veil.hidden = !++depth));
  listen("dragleave", () => (veil.hidden = !--depth));
  listen("dragover", (event) => event.preventDefault());
  listen("drop", (event) => {
    event.preventDefault();
    depth = 0;
    veil.hidden = true;
    receive([...event.dataTransfer.files]);
  });
}

function listen(kind, act) {
  addEventListener(kind, (event) => event.dataTransfer?.types.includes("Files") && act(event));
}
