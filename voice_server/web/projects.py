"""``/projects``: what an editor keeps between two visits."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, Field, RootModel
from starlette.requests import Request
from starlette.routing import BaseRoute

from voice_server.control.cloning import clean_name
from voice_server.core.errors import RequestError
from voice_server.storage.projects import Projects
from voice_server.web.operations import Body, Operation
from voice_server.web.profiles import Deleted, Page

_MAX_DATA = 900_000


class NewProject(Body):
    """A project to be made."""

    name: str = Field(max_length=200)
    data: dict[str, Any] = Field(default_factory=dict, description="Whatever it consists of.")


class ProjectChanges(Body):
    """Fields to be changed; what is left out stays."""

    name: str | None = Field(default=None, max_length=200)
    data: dict[str, Any] | None = None


class Project(BaseModel):
    """A project."""

    id: str
    name: str
    data: dict[str, Any]
    created_at: str
    updated_at: str


class ProjectList(RootModel[list[Project]]):
    """Projects, newest first."""


async def create(request: Request, body: NewProject) -> Project:
    """Make a project."""
    return Project(**await _projects(request).create(clean_name(body.name), _clean(body.data)))


async def list_all(request: Request, query: Page) -> ProjectList:
    """List the projects."""
    rows = await _projects(request).list(query.limit, query.offset)
    return ProjectList([Project(**row) for row in rows])


async def get(request: Request) -> Project:
    """One project."""
    return Project(**await _projects(request).get(_id(request)))


async def update(request: Request, body: ProjectChanges) -> Project:
    """Change a project."""
    changes: dict[str, Any] = {}
    if body.name is not None:
        changes["name"] = clean_name(body.name)
    if body.data is not None:
        changes["data"] = _clean(body.data)
    return Project(**await _projects(request).update(_id(request), **changes))


async def delete(request: Request) -> Deleted:
    """Delete a project."""
    await _projects(request).delete(_id(request))
    return Deleted(message="Project deleted", id=_id(request))


def _projects(request: Request) -> Projects:
    projects: Projects = request.app.state.control.projects
    return projects


def _id(request: Request) -> str:
    project_id: str = request.path_params["project_id"]
    return project_id


def _clean(data: dict[str, Any]) -> dict[str, Any]:
    """JSON that every database can hold."""
    try:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        raise RequestError("data › expected JSON without NaN or lone surrogates") from None
    if len(text) > _MAX_DATA or b"\\u0000" in text:
        raise RequestError(f"data › expected at most {_MAX_DATA} bytes of JSON without NUL")
    return data


def routes() -> list[BaseRoute]:
    tag, one = "projects", "/projects/{project_id}"
    return [
        Operation(
            *("POST", "/projects", create),
            tag=tag,
            body=NewProject,
            answers={200: Project},
            errors=[507],
        ),
        Operation("GET", "/projects", list_all, tag=tag, query=Page, answers={200: ProjectList}),
        Operation("GET", one, get, tag=tag, answers={200: Project}, errors=[404]),
        Operation(
            *("PUT", one, update),
            tag=tag,
            body=ProjectChanges,
            answers={200: Project},
            errors=[404, 507],
        ),
        Operation("DELETE", one, delete, tag=tag, answers={200: Deleted}, errors=[404]),
    ]
