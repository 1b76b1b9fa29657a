/* Pages opened as files may not start a worker: the search then runs in a hidden frame, behind the same three methods. */
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.onmessage = null;
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.appendChild(this.frame);
      const inside = this.frame.contentWindow;
      inside.postMessage = (data) => setTimeout(() => { // as late as a message of a worker
        const event = new MessageEvent("message", { data: structuredClone(data) });
        this.dispatchEvent(event);
        if (this.onmessage) this.onmessage(event);
      });
      const script = inside.document.createElement("script");
      script.src = new URL(url, location.href).href;
      this.loaded = new Promise((resolve) => { script.onload = resolve; });
      inside.document.body.appendChild(script);
    }
    postMessage(data) {
      this.loaded.then(() => setTimeout(() => {
        this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data: structuredClone(data) }));
      }));
    }
    terminate() { this.frame.remove(); }
  };
}
