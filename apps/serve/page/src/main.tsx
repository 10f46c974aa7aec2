import { render } from "preact";
import { App } from "./app";
import { AppState } from "./app_state";
import "./style.css";
import "./controls.css";
import "./prose.css";

render(<App app={new AppState()} />, document.getElementById("app")!);
